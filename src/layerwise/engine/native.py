"""The plan on the C++ core: the same interface as the torch engine, and the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.engine.loss import Loss
from layerwise.engine.plan import (
    STATES,
    Refused,
    check_targets,
    read_layers,
    read_loss,
    read_optimizer,
)
from layerwise.engine.seen import LayerSums, ParameterSums, Seen, seen_of
from layerwise.engine.torch import Epoch, Loader, NotFinite, Rows

try:
    import layerwise.engine._core as _core
except ImportError:  # a pure installation: everything works, on torch
    _core = None

AVAILABLE = _core is not None
PARAMETERS, GRADIENTS, STATE, STATISTICS = 0, 1, 2, 5  # the core's buffers
# Options of a parameter group, by torch's name and the core's.
OPTIONS = {
    **{name: name for name in (
        "lr", "weight_decay", "momentum", "dampening", "eps", "alpha", "lr_decay",
        "momentum_decay", "nesterov", "amsgrad", "centered", "maximize",
    )},
    "decoupled_weight_decay": "decoupled",
}  # fmt: skip


class Native:
    """A network, its loss and its optimizer on the core, until `store` brings them back.

    Parameters
    ----------
    network, loss, optimizer : as the torch engine takes them
    rows, valid : for the shapes and types that will come; none are kept
    dropout : the generator that the core's dropout is seeded from in each epoch; without one that
        of the layers, or torch's global one
    instruction_set : one of ``_core.instruction_sets()``; the best one by default

    Raises
    ------
    Refused
        If the core cannot run them; the sentence says why.
    """

    name = "native"

    def __init__(
        self, network: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer,
        rows: Rows | Loader, valid: Rows | Loader | None = None, *,
        dropout: torch.Generator | None = None, instruction_set: str = "",
    ) -> None:  # fmt: skip
        if _core is None:
            raise Refused(
                "this installation has no native core: no C++ compiler was found. Install g++ "
                "or clang, and layerwise again"
            )
        self.network, self.optimizer = network, optimizer
        self.dropout = dropout
        if not isinstance(rows, Rows) or not isinstance(rows.X, Tensor) or rows.X.dim() != 2:
            raise Refused("the data are not one tensor of shape (N, columns)")
        self.layers = read_layers(network, rows.X.shape[1])
        self.parameters = [p for layer in self.layers for p in layer.parameters]
        self.kind = read_optimizer(optimizer, self.parameters)
        self.dtype = self.parameters[0].dtype
        planned = [layer.planned for layer in self.layers]
        self.core = _core.Network(
            planned, rows.X.shape[1], self.dtype == torch.float64, instruction_set,
            self.layers[0].edges,
        )
        self.loss = read_loss(loss, self.core.n_outputs)
        for some in (rows, valid):
            if some is not None:
                self._check(some)
        # Which parameter, and of which group, each run of the core's buffers is.
        index = {id(p): i for i, p in enumerate(self.parameters)}
        self.runs = [
            (index[id(p)], number)
            for number, group in enumerate(optimizer.param_groups)
            for p in group["params"]
        ]
        self.load()

    # ------------------------------------------------------------ to the core and back

    def load(self) -> None:
        """Weights, running statistics and the optimizer's state, from torch."""
        self._load_weights()
        found = []
        for i, _ in self.runs:
            p = self.parameters[i]
            state = self.optimizer.state.get(p, {})
            for buffer, name in enumerate(STATES[self.kind]):
                known = state.get(name)
                value = known if isinstance(known, Tensor) else torch.zeros_like(p)
                self.core.put(STATE + buffer, i, _array(value, self.dtype))
            one = _core.Group()
            _, _, one.start, one.stop = self.core.parameters[i]
            # SGD counts no steps: it either remembers a momentum or does not yet.
            begun = isinstance(state.get("momentum_buffer"), Tensor)
            one.steps = int(begun if self.kind == "SGD" else state.get("step", 0))
            one.mu_product = float(state.get("mu_product", 1.0))
            one.product_in_double = _scalar(state.get("mu_product")) == torch.float64
            found.append(one)
        self.core.groups = found
        self.options: list[dict[str, Any]] = []
        self._set_options()

    def _load_weights(self) -> None:
        for i, p in enumerate(self.parameters):
            self.core.put(PARAMETERS, i, _array(p, self.dtype))
        for number, layer, slot in self._normed():
            for k, tensor in enumerate(layer.statistics):
                self.core.put(STATISTICS, slot + k, _array(tensor, self.dtype))
            self.core.set_batches(number, int(layer.module.num_batches_tracked))
        self.versions = self._versions()

    def _versions(self) -> list[int]:
        """torch counts how often each tensor was changed in place."""
        tensors = [t for layer in self.layers for t in (*layer.parameters, *layer.statistics)]
        return [tensor._version for tensor in tensors]

    def _set_options(self) -> None:
        """The options of the parameter groups, as they are now."""
        options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        if options == self.options:
            return
        self.options, groups = options, self.core.groups
        for one, (_, number) in zip(groups, self.runs):
            group = options[number]
            for name, own in OPTIONS.items():
                if name in group:
                    setattr(one, own, group[name])
            one.beta1, one.beta2 = group.get("betas", (0.0, 0.0))
        self.core.groups = groups

    def _normed(self) -> list[tuple[int, Any, int]]:
        """Number, layer and first statistic of each layer that keeps some."""
        found = [(i, layer) for i, layer in enumerate(self.layers) if layer.statistics]
        return [(i, layer, 2 * k) for k, (i, layer) in enumerate(found)]

    @torch.no_grad()
    def store_weights(self) -> None:
        """Weights and running statistics, to torch's tensors."""
        for i, p in enumerate(self.parameters):
            self._get(PARAMETERS, i, p)
        for number, layer, slot in self._normed():
            for k, tensor in enumerate(layer.statistics):
                self._get(STATISTICS, slot + k, tensor)
            layer.module.num_batches_tracked.fill_(self.core.batches(number))
        self.versions = self._versions()

    @torch.no_grad()
    def store(self) -> None:
        """Weights, and the optimizer's state as torch itself would have left it."""
        self.store_weights()
        for one, (i, number) in zip(self.core.groups, self.runs):
            p, group = self.parameters[i], self.optimizer.param_groups[number]
            names = _remembered(self.kind, group)
            if not one.steps or not any(names):
                continue
            state = self.optimizer.state[p]
            if self.kind != "SGD":
                _set(state, "step", float(one.steps), group)
            if self.kind == "NAdam":
                _set(state, "mu_product", one.mu_product, group)
            for buffer, name in enumerate(names):
                if name:
                    if not isinstance(state.get(name), Tensor):
                        state[name] = torch.zeros_like(p)
                    self._get(STATE + buffer, i, state[name])

    def _get(self, buffer: int, slot: int, tensor: Tensor) -> None:
        """Let the core write into a tensor, also into one of another layout or type."""
        if tensor.is_contiguous() and tensor.dtype == self.dtype:
            self.core.get(buffer, slot, tensor.detach().numpy())
        else:
            copy = torch.empty(tensor.shape, dtype=self.dtype)
            self.core.get(buffer, slot, copy.numpy())
            tensor.copy_(copy)

    # ------------------------------------------------------------ the engine's interface

    def train_epoch(
        self, rows: Rows, order: Tensor | None, batch_size: int, *,
        rates: Callable[[int], Sequence[float]] | None = None, clip_norm: float | None = None,
        clip_value: float | None = None, deadline: float = float("inf"),
        stop: Callable[[], bool] | None = None,
    ) -> Epoch:  # fmt: skip
        """See `layerwise.engine.torch.train_epoch`."""
        if order is None:
            order = torch.arange(len(rows))
        if rows.index is not None:
            order = rows.index[order]
        self._check_batches(len(order), rows.X, batch_size)
        if stop is not None and stop():
            raise KeyboardInterrupt
        self._draw()
        self._set_options()
        if self._versions() != self.versions:  # by a callback between two epochs, for example
            self._load_weights()
        table = None
        if rates is not None and len(order):
            each = [rates(step) for step in range(rows.n_steps(batch_size))]
            by_run = [number for _, number in self.runs]
            table = np.ascontiguousarray(np.array(each, dtype=np.float64)[:, by_run])
        left = min(deadline - time.monotonic(), 1e300)
        try:
            told = self.core.epoch(
                *self._given(rows), order.numpy(), batch_size, self.kind, table,
                clip_norm or 0.0, clip_value or 0.0, left,
            )  # fmt: skip
        finally:
            if table is not None:  # the rate of the last step, as a schedule leaves it
                for one, (_, number) in zip(self.core.groups, self.runs):
                    self.optimizer.param_groups[number]["lr"] = one.lr
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # for torch's schedulers
        if told.bad_from >= 0:
            self.store()
            bad = order[told.bad_from : told.bad_to]
            raise NotFinite(told.steps, rows.X[bad], rows.y[bad])  # type: ignore[index]
        return Epoch(told.loss, told.steps, told.rows, told.complete)

    def measure(
        self, rows: Rows, batch_size: int = 0, *,
        score: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    ) -> tuple[float, dict[str, float]]:  # fmt: skip
        """See `layerwise.engine.torch.measure`; the size of a batch is the core's business."""
        rows = rows.picked()
        total, weight = self.core.measure(*self._given(rows))
        scored = score(self.predict(rows.X), rows.y) if score else {}  # type: ignore[arg-type]
        return total / weight if weight else float("nan"), scored

    def predict(self, X: Tensor) -> Tensor:
        """Raw outputs in evaluation mode."""
        outputs = torch.empty(len(X), self.core.n_outputs, dtype=self.dtype)
        self.core.predict(_rows(X, self.dtype), outputs.numpy())
        return outputs

    def gradients(self, rows: Rows) -> tuple[float, list[Tensor]]:
        """Loss and gradients of one batch of all the rows: for tests and traces."""
        self._draw()
        rows = rows.picked()
        value = self.core.gradients(*self._given(rows), np.arange(len(rows), dtype=np.int64))
        found = [torch.empty(p.shape, dtype=self.dtype) for p in self.parameters]
        for i, tensor in enumerate(found):
            self._get(GRADIENTS, i, tensor)
        return value, found

    def _check(self, rows: Rows | Loader) -> None:
        """Refuse rows that are not as the plan takes them."""
        if not isinstance(rows, Rows):
            raise Refused("the data come from a loader")
        _rows(rows.X, self.dtype)
        check_targets(self.loss, rows.y, self.core.n_outputs)
        n = len(rows.X)
        if rows.w is not None and rows.w.shape != (n,):
            raise Refused(f"the row weights have shape {tuple(rows.w.shape)}, not ({n},)")

    # ------------------------------------------------------------ statistics

    def watch(self, every: int) -> None:
        """Look at the first step of each epoch and every so manieth after it; 0 for none."""
        self.core.watch(every)

    def seen(self) -> Seen:
        """What was seen since it was last asked, by layer and by parameter; None for nothing.

        The names are those of `layerwise.engine.seen.layer_names` and ``parameter_names``.
        """
        layers, parameters = self.core.seen()
        return seen_of([LayerSums(*one) for one in layers], [ParameterSums(*p) for p in parameters])

    # ------------------------------------------------------------ what the core is given

    def _given(self, rows: Rows) -> tuple[Any, ...]:
        """X, y, weights and loss as the core takes them."""
        self._check(rows)
        y: Any = rows.y
        classes = self.loss.classes and not y.is_floating_point()
        w = None if rows.w is None else _array(rows.w, self.dtype)
        weight = None if self.loss.weight is None else _array(self.loss.weight, self.dtype)
        loss = _core.Loss(self.loss.kind, self.loss.a, weight, self.loss.ignored, classes)
        return _rows(rows.X, self.dtype), _array(y, y.dtype if classes else self.dtype), w, loss

    def _check_batches(self, n: int, X: Any, batch_size: int) -> None:
        """Say of a batch of one row what torch's batch normalisation says."""
        lone = n == 1 or (batch_size == 1 and n > 2)  # a last row alone joins the one before
        if lone and self._normed():
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{torch.Size([1, X.shape[1]])}"
            )

    def _draw(self) -> None:
        """Dropout goes on from the generator that its layers draw from in torch."""
        for layer in self.layers:
            if layer.planned[0] == "Dropout" and layer.planned[4] > 0:
                generator: Any = self.dropout or getattr(layer.module, "generator", None)
                self.core.seed(int(torch.randint(2**62, (), generator=generator)))
                break


def _remembered(kind: str, group: dict[str, Any]) -> tuple[str, ...]:
    """The states that these options use; "" for a buffer that they do not."""
    names = STATES[kind]
    uses = {
        "SGD": [group.get("momentum", 0) != 0],
        "Adam": [True, True, group.get("amsgrad")],
        "AdamW": [True, True, group.get("amsgrad")],
        "RMSprop": [True, group.get("centered"), group.get("momentum", 0) > 0],
    }.get(kind, [True] * len(names))
    return tuple(name if used else "" for name, used in zip(names, uses))


def _scalar(known: Any, fused: bool = False) -> torch.dtype:
    """The type of an optimizer's scalar: as it is, or as torch would make it."""
    if isinstance(known, Tensor):
        return known.dtype
    default = torch.get_default_dtype()
    return torch.float64 if default == torch.float64 and not fused else torch.float32


def _set(state: dict[str, Any], name: str, value: float, group: dict[str, Any]) -> None:
    if isinstance(state.get(name), Tensor):
        state[name].fill_(value)
    else:
        state[name] = torch.tensor(value, dtype=_scalar(None, bool(group.get("fused"))))


def _rows(X: Any, dtype: torch.dtype) -> np.ndarray:
    if not isinstance(X, Tensor) or X.dim() != 2:
        raise Refused("X is not one tensor of shape (N, columns)")
    if X.dtype != dtype or X.device.type != "cpu" or X.layout != torch.strided:
        raise Refused(f"X is {X.dtype} on {X.device} and the network {dtype} on cpu")
    return _array(X, dtype)


def _array(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    """The tensor as an array, shared where its layout and type are right already."""
    return tensor.detach().to(dtype).contiguous().numpy()
