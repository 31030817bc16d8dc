"""Symptoms: what a training looks like that does not work, where no cause was found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layerwise.diagnosis.case import CLASSES, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.locate import locate
from layerwise.diagnosis.portrait import Portrait, portrait
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.watched import Curves, Look, Watched

# ---------------------------------------------------------------- gradients


@rule("vanishing-gradients", stage="first_batch")
def vanishing_at_start(first: FirstBatch) -> Iterator[Finding]:
    """The first layer gets next to nothing of the last layer's gradient."""
    found = _given(first)
    if found is not None:
        yield from _vanishing(found.gradients, 1e-3, first.case)


@rule("vanishing-gradients", stage="training")
def vanishing(seen: Watched) -> Iterator[Finding]:
    """The same while training, and while there is still something to learn."""
    looks = [look for look in seen.looks if any(look.gradient.values())]
    if not looks or not seen.baseline or not seen.level > 0.5 or seen.bad is not None:
        return
    layers = {name: [look.gradient[name] for look in looks[:10]] for name in _matrices(looks[0])}
    gradients = {_layer(name): statistics.median(values) for name, values in layers.items()}
    moved = (seen.epochs[0] - min(seen.epochs)) / seen.baseline
    deep = len(gradients) >= 4  # 3 or more hidden layers
    yield from _vanishing(gradients, 2e-2 if deep and moved < 0.02 else 1e-3, seen.case)


def _vanishing(gradients: dict[str, float], limit: float, case: Case) -> Iterator[Finding]:
    """``gradients`` are norms of weight matrices by layer, from the first to the last."""
    if len(gradients) < 3:
        return
    names, sizes = list(gradients), list(gradients.values())
    if not sizes[-1] or not sizes[0] or _silent_head(case, names[-1]):
        return
    ratio = sizes[0] / sizes[-1]
    if not ratio < limit:
        return
    slow = [name for name, size in gradients.items() if size < 10 * limit * sizes[-1]]
    yield finding(
        "warning", names[0],
        f"The first layer '{names[0]}' gets {ratio:.0e} of the last layer's gradient; layers "
        f"{', '.join(slow)} hardly learn.",
        healthy=f"at least {limit:g} (healthy networks start between 0.02 and 3)",
        why="A gradient that shrinks from layer to layer leaves the first layers at random.",
        mend="ReLU or GELU instead of sigmoid, the init that fits the activation, "
        "normalisation between the layers, or fewer layers.",
        ratio=ratio, limit=limit, layers=", ".join(slow),
    )  # fmt: skip


def _silent_head(case: Case, name: str) -> bool:
    """Whether the last layer starts at 0, so that nothing can pass it in the first step."""
    weight = dict(case.model.named_parameters()).get(f"{name}.weight" if name else "weight")
    return weight is not None and not bool(weight.detach().any())


@rule("exploding-gradients", stage="first_batch")
def exploding_at_start(first: FirstBatch) -> Iterator[Finding]:
    """Gradients far larger than their loss."""
    found = _given(first)
    if found is None or not math.isfinite(found.norm):
        return
    names, sizes = list(found.gradients), list(found.gradients.values())
    ratio = sizes[0] / sizes[-1] if len(sizes) > 1 and sizes[-1] else 0.0
    loss = found.loss if math.isfinite(found.loss) else 1.0
    if found.norm > 1e3 * max(1.0, math.sqrt(abs(loss))) or (ratio > 70 and found.norm > 10):
        where = names[sizes.index(max(sizes))] if sizes else "forward"
        yield _exploding("warning", where, found.norm, ratio)


@rule("exploding-gradients", stage="training")
def exploding(seen: Watched) -> Iterator[Finding]:
    """The same at some steps of the training."""
    looks = [look for look in seen.looks if any(look.gradient.values())]
    if not looks or seen.second_order or (seen.bad is not None and seen.bad.where in ("X", "y")):
        return
    first = abs(seen.losses[0]) if seen.losses and math.isfinite(seen.losses[0]) else 1.0
    limit, run = 1e3 * max(1.0, math.sqrt(first)), 0
    for i, look in enumerate(looks):
        norm = look.norm
        if seen.bad is not None and math.isnan(norm):
            return  # what comes after a bad value tells nothing any more
        usual = statistics.median(one.norm for one in looks[: i + 1])
        run = run + 1 if i and norm > 100 * usual and norm > 10 else 0
        if norm > limit or run >= 3 or math.isnan(norm):
            worst = max(look.gradient, key=lambda name: _size(look.gradient[name]))
            severity = "error" if seen.bad is not None else "warning"
            yield _exploding(severity, _layer(worst), norm, 0.0, step=look.step + 1)
            return


def _exploding(severity: str, where: str, norm: float, ratio: float, **values: int) -> Finding:
    at = f" in step {values['step']}" if values else ""
    return finding(
        severity, where, f"The gradient norm is {norm:.2g}{at}, largest in '{where}'.",
        healthy="below 15 at the start, below 3 later",
        why="One step along such a gradient throws the weights far away.",
        mend="First init and scaling, then nn.utils.clip_grad_norm_(model.parameters(), 1.0), "
        "then a lower rate.", norm=norm, ratio=ratio, **values,
    )  # fmt: skip


def _size(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _matrices(look: Look) -> list[str]:
    return [name for name in look.gradient if name not in look.flat]


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _given(first: FirstBatch) -> Portrait | None:
    """The network on the rows that were given; made-up rows prove nothing."""
    return None if first.invented or first.y_invented else portrait(first.case)


# ---------------------------------------------------------------- units


@rule("dead-relu", stage="first_batch")
def dead_at_start(first: FirstBatch) -> Iterator[Finding]:
    """Units that fire for no row."""
    found = None if first.invented else portrait(first.case)
    if found is not None:
        yield from _dead(found, 0.5 if _centred(first.case.X) else 0.9)


def _centred(X: object) -> bool:
    """Whether columns lie about 0; of units on columns that do not, half are silent by chance."""
    if not isinstance(X, Tensor) or X.dim() != 2 or not X.is_floating_point() or len(X) < 2:
        return True
    return float((X.mean(dim=0).abs() < X.std(dim=0)).double().mean()) > 0.5


@rule("dead-relu", stage="training")
def dead(seen: Watched) -> Iterator[Finding]:
    """The same at the end, where something is left to learn."""
    if seen.end is not None and seen.level > 0.3:
        yield from _dead(seen.end, 0.8)


def _dead(found: Portrait, limit: float) -> Iterator[Finding]:
    if found.n_rows < 50:
        return
    for units in found.units:
        if units.kind == "Relu" and units.n > 1 and units.dead >= limit * units.n:
            yield finding(
                "error" if units.dead == units.n else "warning", units.where,
                f"{units.dead} of {units.n} units of '{units.where}' never fire for any of "
                f"{found.n_rows} rows.",
                healthy="at most 13 % at the start, two thirds at the end",
                why="A unit that is 0 for every row gets no gradient and stays so.",
                mend="By cause: scale the features to mean 0, a bias of 0, a lower rate; or "
                "nn.LeakyReLU().",
                dead=units.dead, units=units.n, limit=limit,
            )  # fmt: skip


@rule("saturated-activation", stage="first_batch")
def saturated_at_start(first: FirstBatch) -> Iterator[Finding]:
    """Sigmoids and tanhs that are pinned at their limits."""
    found = None if first.invented else portrait(first.case)
    if found is not None:
        yield from _saturated(found, 0.3)


@rule("saturated-activation", stage="training")
def saturated(seen: Watched) -> Iterator[Finding]:
    """The same at the end, where something is left to learn."""
    if seen.end is not None and seen.level > 0.3:
        yield from _saturated(seen.end, 0.5)


def _saturated(found: Portrait, limit: float) -> Iterator[Finding]:
    for units in found.units:
        if units.kind != "Relu" and units.beyond > limit:
            yield finding(
                "warning", units.where,
                f"'{units.where}' is pinned at its limits for {units.beyond:.0%} of the values, so "
                "its gradient is almost 0.",
                healthy=f"at most {limit:.0%} of the values with |z| above 5",
                why="Where the curve is flat no gradient passes.",
                mend="Scale the inputs, start with smaller weights, or take nn.ReLU().",
                share=units.beyond, limit=limit,
            )  # fmt: skip


# ---------------------------------------------------------------- the loss


@rule("non-finite-loss", stage="first_batch")
def non_finite_at_start(first: FirstBatch) -> Iterator[Finding]:
    """A first loss that is no number, though the rows are."""
    value, X, y = first.value, first.X, first.y
    if value is None or first.invented or first.y_invented or bool(torch.isfinite(value).all()):
        return
    inputs = X if isinstance(X, tuple | dict) else (X,)
    where, told = locate(first.model, inputs, y, first.found.outputs)
    if where not in ("X", "y"):
        yield _bad(where, f"The first loss is not finite; the first bad value {told}.")


@rule("non-finite-loss", stage="training")
def non_finite(seen: Watched) -> Iterator[Finding]:
    """The first loss that is no number, and where it came from."""
    bad = seen.bad
    if bad is None:
        return
    where, usual = bad.where, [value for value in seen.losses if math.isfinite(value)]
    word = "nan" if math.isnan(bad.value) else "infinite"
    told = f"The loss became {word} at step {bad.step + 1}; the first bad value {bad.told}."
    calm = usual and max(usual) <= 2 * max(usual[0], seen.baseline or 0.0)
    if where == "optimizer" and calm:
        where = "loss"
        told += " The loss was finite before, its gradient was not."
    yield _bad(where, told, step=bad.step + 1)


def _bad(where: str, told: str, **values: int) -> Finding:
    mend = {
        "X": "Fill or drop the rows with gaps; log1p instead of log; look at divisions.",
        "y": "Fill or drop the rows without a target.",
        "optimizer": "A lower rate, clip_grad_norm_, or an eps under the root or the fraction.",
        "loss": "An eps under the logarithm, root or fraction: torch.log(p.clamp_min(1e-7)), "
        "torch.sqrt(x + 1e-8).",
    }.get(where, f"Look at '{where}': clamp what goes into exp, log, root or fraction.")
    return finding(
        "error", where, told, healthy="a finite loss at every step",
        why="One such value makes every weight nan in the next step.", mend=mend, **values,
    )  # fmt: skip


@rule("loss-stuck", stage="training")
def stuck(seen: Watched) -> Iterator[Finding]:
    """Everyone still gets the same answer."""
    n = len(seen.epochs)
    enough = (n >= 5 and seen.passes >= 200) or (n >= 20 and seen.passes >= 100)
    if not enough or not seen.baseline or seen.bad is not None or not seen.changed:
        return
    best = min(seen.epochs)
    end = seen.end
    if not best > 0.97 * seen.baseline or end is None or end.outputs is None:
        return
    said = _same_answer(seen.kind, end)
    if said:
        yield finding(
            "warning", "loop",
            f"After {n} epochs the model still gives everyone the same answer ({said}); its best "
            f"loss was {best:.3g}, that of a constant is {seen.baseline:.3g}.",
            healthy="a loss clearly below that of a constant answer",
            why="What the rows say does not reach the answer.",
            mend="Try another rate (10 times more or less), scale the features, and make sure "
            "that rows and targets belong together.",
            best=best, baseline=seen.baseline, epochs=n,
        )  # fmt: skip


def _same_answer(kind: str, end: Portrait) -> str:
    """The answer that all rows get; "" if they differ."""
    outputs, y = end.outputs, end.y
    if outputs is None:
        return ""
    if kind in CLASSES and outputs.dim() == 2:
        classes = outputs.argmax(dim=1).unique()
        return f"class {int(classes[0])}" if len(classes) == 1 else ""
    values = outputs.double().reshape(len(outputs), -1)
    if kind.startswith("binary"):
        share = (values > (0 if "logits" in kind else 0.5)).double().mean(dim=0)
        return "yes" if bool((share == 1).all()) else "no" if bool((share == 0).all()) else ""
    if not isinstance(y, Tensor):
        return ""
    spread = float(values.std(dim=0, correction=0).mean())
    wanted = float(y.double().reshape(len(y), -1).std(dim=0, correction=0).mean())
    return f"{float(values.mean()):.3g}" if spread < 0.05 * wanted else ""


# ---------------------------------------------------------------- after


@rule("overfitting", stage="after")
def overfitting(curves: Curves) -> Iterator[Finding]:
    """The validation loss has long been rising while the training loss falls."""
    valid, train = list(curves.valid), list(curves.train)
    n = min(len(valid), len(train))
    if n < 8 or not all(map(math.isfinite, [*valid[:n], *train[:n]])):
        return
    best = min(range(n), key=valid.__getitem__)
    last = statistics.mean(valid[n - 3 : n])
    if best > n - 6 or not last > 1.15 * valid[best] or not train[n - 1] < 0.5 * last:
        return
    if not statistics.mean(train[n - 3 : n]) < train[best]:
        return
    if min(valid[n - 5 : n]) < 1.1 * valid[best]:
        return  # single epochs jump
    if curves.baseline and last - valid[best] < 0.03 * curves.baseline:
        return  # it has learnt nearly all there is
    worse = last / valid[best] - 1
    if curves.n_valid and worse < 2 / math.sqrt(curves.n_valid):
        return  # so much is chance with so few rows
    yield finding(
        "warning", "loop",
        f"Validation was best at epoch {best + 1} ({valid[best]:.3g}); since then it got "
        f"{worse:.0%} worse while training improved to {train[n - 1]:.3g}.",
        healthy="a validation loss that is still near its best when training ends",
        why="From there on the network learns its rows by heart.",
        mend=f"Stop early, at epoch {best + 1}; smaller layers, dropout, weight decay, more rows.",
        epoch=best + 1, best=valid[best], last=last,
    )  # fmt: skip


@rule("too-few-epochs", stage="after")
def too_few_epochs(curves: Curves) -> Iterator[Finding]:
    """The loss was still falling fast when training stopped."""
    epochs, base = len(curves.train), curves.baseline
    if not base or curves.annealed or not all(map(math.isfinite, curves.train)):
        return
    if epochs <= 3:
        yield from _hardly_begun(curves, epochs, base)
        return
    if not _still_falling(curves):
        return
    k, late, whole = _falls(curves.train)
    yield _too_few(
        "note", f"after {epochs} epochs ({late / whole:.0%} of all that was gained came in the "
        f"last {k if k > 1 else 'one'})", f"{2 * epochs} epochs, or a higher rate.",
        share=late / whole, epochs=epochs,
    )  # fmt: skip


def _falls(points: Sequence[float]) -> tuple[int, float, float]:
    """How many epochs the last fifth is, what was gained in it, and in all."""
    k = max(len(points) // 5, 1)
    return k, points[-1 - k] - points[-1], points[0] - points[-1]


def _still_falling(curves: Curves) -> bool:
    base, points = curves.baseline, curves.train
    if len(points) < 4 or not base:
        return len(points) < 4
    _, late, whole = _falls(points)
    return whole > 0.05 * base and points[-1] > 0.2 * base and late > 0.2 * whole


def _hardly_begun(curves: Curves, epochs: int, base: float) -> Iterator[Finding]:
    """Single batches are too noisy to tell: the rows were measured before and after."""
    start, end = curves.start, curves.end
    if start is None or end is None or not 5 <= curves.steps < 500:
        return
    gained = start.loss - end.loss
    if not gained > 0.02 * base or not end.loss > 0.3 * base:
        return
    yield _too_few(
        "warning", f"after {epochs} epoch{'s' * (epochs != 1)} of {curves.steps // epochs} steps, "
        f"at {end.loss:.3g} of {base:.3g} for a constant answer", "20 epochs, or a higher rate.",
        gained=gained, epochs=epochs,
    )  # fmt: skip


def _too_few(severity: str, told: str, mend: str, **values: float) -> Finding:
    return finding(
        severity, "loop", f"The loss was still falling when training stopped {told}.",
        healthy="less than 20 % of the gain in the last fifth of the epochs",
        why="The network could learn more than it was given time for.", mend=mend, **values,
    )  # fmt: skip


@rule("underfitting", stage="after")
def underfitting(curves: Curves) -> Iterator[Finding]:
    """A linear model or nearest neighbours do better, or nothing does."""
    from layerwise.diagnosis.peers import at_chance_on_others, compare

    case, end = curves.case, curves.end
    if case is None or end is None or end.outputs is None or not curves.baseline:
        return
    if not isinstance(case.X, Tensor) or case.X.dim() != 2 or not math.isfinite(end.loss):
        return
    if curves.steps < 50 or end.loss < 0.4 * curves.baseline:
        return
    if _still_falling(curves):
        return  # then it is the time that it lacked
    rivals = compare(case, end)
    if rivals is None:
        return
    own, linear, nearest = rivals.network, rivals.linear, rivals.nearest
    if max(linear, nearest) > own + 0.05:
        name, score = max(("linear", linear), ("nearest-neighbour", nearest), key=lambda p: p[1])
        layers = [m for _, m in case.layers if isinstance(m, torch.nn.Linear)]
        far = end.loss > 0.6 * curves.baseline and score > 0.7 + 0.3 * rivals.chance
        if name != "linear" and (len(layers) < 2 or not far):
            return
        yield finding(
            "warning", _narrowest(case),
            f"A plain {name} model does better on rows it has not seen: {rivals.measure} "
            f"{score:.2f}, the network has {own:.2f} on its own rows.",
            healthy="at least as good as a linear model",
            why="The network has not learnt what is plainly there.",
            mend=f"Widen '{_narrowest(case)}', train longer, or a higher rate.",
            network=own, linear=linear, nearest=nearest,
        )  # fmt: skip
    elif rivals.hopeless and at_chance_on_others(case, len(curves.train)):
        yield finding(
            "warning", "y",
            f"Nothing predicts these targets: {rivals.measure} is {own:.2f} for the network, "
            f"{linear:.2f} for a linear model, {nearest:.2f} for nearest neighbours, and "
            f"{rivals.chance:.2f} for a constant.",
            healthy="some model that beats a constant",
            why="Either the columns say nothing, or rows and targets have been mixed up.",
            mend="Make sure that X and y are in the same order: shuffle, sort or drop rows of "
            "both together.",
            network=own, linear=linear, nearest=nearest,
        )  # fmt: skip


def _narrowest(case: Case) -> str:
    """The hidden layer with the fewest units."""
    layers = [(n, m) for n, m in case.layers if isinstance(m, torch.nn.Linear)]
    hidden = layers[:-1] or layers
    return min(hidden, key=lambda pair: pair[1].out_features)[0] if hidden else "forward"
