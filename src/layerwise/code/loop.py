"""The network and its training, as the templates are told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from layerwise.code.words import call, quoted
from layerwise.errors import SettingError
from layerwise.model.model import Model
from layerwise.network.plan import ACTIVATIONS
from layerwise.training.recipe import Recipe

PIECE = 8192  # rows at a time that the run's own loop measures

# What our recipe sets of each class of torch.optim; to ask torch itself takes seconds.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "ASGD": ("weight_decay",), "Adadelta": ("weight_decay",), "Adafactor": ("weight_decay",),
    "Adagrad": ("weight_decay", "fused"), "Adam": ("weight_decay", "fused"),
    "AdamW": ("weight_decay", "fused"), "Adamax": ("weight_decay",), "LBFGS": (),
    "NAdam": ("weight_decay",), "RAdam": ("weight_decay",),
    "RMSprop": ("weight_decay", "momentum"), "Rprop": (),
    "SGD": ("weight_decay", "momentum", "fused"),
}  # fmt: skip
_LOSSES = {  # as a module, as a function, in words
    "mse": ("nn.MSELoss()", "F.mse_loss", ""),
    "l1": ("nn.L1Loss()", "F.l1_loss", ""),
    "huber": ("nn.HuberLoss()", "F.huber_loss", "squared where small, absolute where large"),
    "bce": (
        "nn.BCEWithLogitsLoss()", "F.binary_cross_entropy_with_logits",
        "on logits: log and sigmoid in one cannot overflow",
    ),
    "cross_entropy": (
        "nn.CrossEntropyLoss()", "F.cross_entropy",
        "on logits: log and softmax in one cannot overflow",
    ),
}  # fmt: skip
_LOSS_OF = {"regression": "mse", "binary": "bce", "multiclass": "cross_entropy"}
_DRAWN = dict.fromkeys(("Tanh", "Sigmoid", "Hardtanh", "Identity"), "glorot") | {"SELU": "lecun"}
_OUTPUT = {
    "regression": "the standardised answer",
    "binary": "one logit: above 0 for the second class",
    "multiclass": "a logit for each class",
    "multilabel": "a logit for each label",
}
_SCHEDULES = {
    "constant": "stays once it is there",
    "cosine": "falls to 0 as a cosine",
    "linear": "falls to 0 in a line",
    "exponential": "falls to a hundredth",
    "step": "is a tenth after each third",
    "one_cycle": "climbs from a tenth, and falls to 0 as a cosine",
}
_HIGHER = ("r2", "accuracy", "balanced_accuracy", "roc_auc", "f1")
_FUNCTIONS = {layer["type"] for layer in ACTIVATIONS.values()}

Values = dict[str, Any]


def network_values(model: Model, recipe: Recipe) -> Values:
    """The layers, and how their weights are drawn."""
    types = [layer["type"] for layer in model.plan]
    activation = next((kind for kind in types if kind in _FUNCTIONS), "Identity")
    hidden = types.count("Linear") > 1
    first = model.plan[0]
    embedded, binned = any(first.get("embedding", ())), any(first.get("bins", ()))
    return {
        "threads": recipe.threads,
        "input_layer": embedded or binned,
        "binned": binned,
        "n_bins": recipe.bins,
        "n_numbers": model.encoder.n_numbers,
        # columns of 0 and 1 are made while encoding, if no category is embedded
        "spread": binned and not embedded and bool(model.encoder.categories),
        "has_codes": embedded,
        "n_categories": len(model.encoder.categories),
        "layers": layer_lines(model, trained=False),
        "rule": _DRAWN.get(activation, "he") if hidden else "glorot",
        "device": None if recipe.device == "cpu" else recipe.device,
        "to_device": "" if recipe.device == "cpu" else ", device=DEVICE",
    }


def layer_lines(model: Model, *, trained: bool) -> list[str]:
    """A line for each layer; a network to be trained takes its widths from what it is given."""
    lines: list[str] = []
    embedded, binned = any(model.plan[0].get("embedding", ())), model.plan[0].get("bins", ())
    for place, layer in enumerate(model.plan):
        kind = layer["type"]
        if kind == "InputLayer":
            if trained:
                given = [str(layer["n_numbers"])]
                given += [str(layer["n_codes"])] if layer["n_codes"] else []
                given += ["sizes"] if any(binned) else []
                pad = 4 if len(model.members) == 1 else 8
                lines.append(call("InputLayer", given, ",", pad, pad))
            elif embedded or any(binned):
                given = ["n_numbers", *["n_codes"] * embedded, *["sizes"] * any(binned)]
                lines.append(f"InputLayer({', '.join(given)}),")
            continue
        names = ("in_features", "out_features", "num_features", "normalized_shape", "p")
        given = [str(layer[name]) for name in names if name in layer]
        if kind == "Linear" and not trained and not any("Linear" in line for line in lines):
            given[0] = "n_numbers + sum(map(width, n_codes))" if embedded else "X.shape[1]"
            given[0] += " + n_bins" * any(binned)
        last = place == len(model.plan) - 1
        note = f"  # {_OUTPUT[model.target.task]}" if last else ""
        lines.append(f"nn.{kind}({', '.join(given)}),{note}")
    return lines


def loop_values(model: Model, record: Mapping[str, Any], recipe: Recipe) -> Values:
    """Loss, optimizer, schedule, and when the training ends."""
    module, function, words = _LOSSES[
        _LOSS_OF[model.target.task] if recipe.loss == "auto" else recipe.loss
    ]
    names = {name.lower(): name for name in OPTIMIZERS}
    if recipe.optimizer.lower() not in names:
        raise SettingError(f"there is no code for the optimizer {recipe.optimizer!r} yet")
    optimizer = names[recipe.optimizer.lower()]
    options: dict[str, Any] = {}
    if "momentum" in OPTIMIZERS[optimizer]:
        options["momentum"] = recipe.momentum
    for name, value in recipe.optimizer_options.items():
        options[name] = tuple(value) if isinstance(value, list) else value
    if "fused" in OPTIMIZERS[optimizer] and "foreach" not in options:
        options.setdefault("fused", True)
    decays = "weight_decay" in OPTIMIZERS[optimizer]
    decay = options.pop("weight_decay", recipe.weight_decay) if decays else None
    sizes, size = record["data"]["rows"], int(recipe.batch_size)
    judged = "valid" if sizes["valid"] else "train"
    monitor = None if recipe.monitor == "loss" else recipe.monitor
    members = record.get("members") or [record]
    n_folds = folds_of(record)
    if n_folds:
        judged = "valid"
    lone = any(n > size and (n - 1) % size == 0 for n in _trained(record, n_folds))
    ends = [member["stopped"].split(":")[0] for member in members]
    ended = next((end for end in ends if end not in ("epochs", "patience")), "epochs")
    early = ended != "epochs"
    if any(m["stopped"] == "time limit" and m["epochs"] == 1 for m in members):
        raise SettingError(
            "the run's time limit ended it in its first epoch, and where in it is not known; train "
            "with more time (--time-limit), and ask for the code of that"
        )
    return {
        "loss_module": module,
        "loss_function": function,
        "loss_words": words,
        "optimizer": optimizer,
        "options": [f"{name}={quoted(value)}" for name, value in options.items()],
        "decays": decays,
        "weight_decay": decay,
        "norm": recipe.norm,
        "dropout": recipe.dropout,
        "schedule": recipe.schedule,
        "scheduled": recipe.schedule != "constant" or float(recipe.warmup) > 0,
        "schedule_words": _SCHEDULES[recipe.schedule],
        "warmup": recipe.warmup,
        "clip_norm": recipe.clip_norm,
        "clip_value": recipe.clip_value,
        "lone": lone,
        "alone": size == 1,
        "patience": recipe.patience if judged == "valid" else None,
        "min_delta": recipe.min_delta,
        "monitor": monitor,
        "higher": monitor in _HIGHER,
        "judged": judged,
        "watched": f"{judged}_{monitor or 'loss'}",
        "piece": PIECE if sizes["train" if n_folds else judged] > PIECE else None,
        "last_epochs": [member["epochs"] for member in members],
        "ended": ended if early else None,
        "stop_after": record["epochs"] if early else None,
    }


def folds_of(record: Mapping[str, Any]) -> int:
    """How many folds the training rows of a run are in; 0 for none."""
    return int(record["data"].get("folds", 0))


def _trained(record: Mapping[str, Any], n_folds: int) -> Iterable[int]:
    """How many rows a network may be trained on, where a fold of them is held out."""
    n = record["data"]["rows"]["train"]
    if not n_folds:
        return [n]
    if record["question"].get("group") is not None:
        return range(n)
    return range(n - n // n_folds - 2, n - n // n_folds + 1)  # single rows are in no fold
