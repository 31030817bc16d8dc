"""The plan on the C++ core: the same interface as the torch engine, and the same numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
KEPT, KEPT_STATISTICS = 6, 7
# Options of a parameter group, by torch's name and the core's.
OPTIONS = {
    **{name: name for name in (
        "lr", "weight_decay", "momentum", "dampening", "eps", "alpha", "lr_decay",
        "momentum_decay", "nesterov", "amsgrad", "centered", "maximize",
    )},
    "decoupled_weight_decay": "decoupled",
}  # fmt: skip


@dataclass(slots=True)
class Passed:
    """One epoch of several in one go.

    Attributes
    ----------
    epoch : as `Native.train_epoch` gives it
    loss : of the rows that decide on the best epoch, in evaluation mode
    ended : ``time.monotonic()`` when it had been measured
    outputs : of the rows that decide, if they were asked for
    kept : whether `Native.store_kept` brings its weights
    seen : as `Native.seen` gives it, if the epoch was looked at
    """

    epoch: Epoch
    loss: float
    ended: float
    outputs: Tensor | None = None
    kept: bool = False
    seen: Seen | None = None


@dataclass(frozen=True)
class Gain:
    """What counts as a gain, and how long training goes on without one.

    Attributes
    ----------
    best : the lowest loss so far; NaN where there is none
    min_delta : how far below it the loss has to be
    patience : so many epochs without gain end the training; 0 never does
    epoch, best_epoch : how many there were before, and which of them was the best
    """

    best: float = math.nan
    min_delta: float = 0.0
    patience: int = 0
    epoch: int = 0
    best_epoch: int = 0


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
            planned,
            rows.X.shape[1],
            self.dtype == torch.float64,
            instruction_set,
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

    def store_weights(self) -> None:
        """Weights and running statistics, to torch's tensors."""
        self._store(PARAMETERS, STATISTICS, self.core.batches)

    def store_kept(self) -> None:
        """Those of the best of several epochs, to torch's tensors; the core keeps its own."""
        self._store(KEPT, KEPT_STATISTICS, self.core.kept_batches)

    @torch.no_grad()
    def _store(self, parameters: int, statistics: int, batches: Callable[[int], int]) -> None:
        for i, p in enumerate(self.parameters):
            self._get(parameters, i, p)
        for number, layer, slot in self._normed():
            for k, tensor in enumerate(layer.statistics):
                self._get(statistics, slot + k, tensor)
            layer.module.num_batches_tracked.fill_(batches(number))
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
        self._begin(len(order), rows.X, batch_size, stop)
        seed = self._seed()
        if seed is not None:
            self.core.seed(seed)
        table = self._table(rates, rows.n_steps(batch_size) if len(order) else 0)
        try:
            told = self.core.epoch(
                *self._given(rows), order.numpy(), batch_size, self.kind, table, clip_norm or 0.0,
                clip_value or 0.0, _left(deadline), stop,
            )  # fmt: skip
        finally:
            self._after(table)
        if told.bad_from >= 0:
            raise self._not_finite(told, rows, order)
        return _epoch(told)

    def train_epochs(
        self, rows: Rows, orders: Tensor, batch_size: int, held: Rows, gain: Gain, *,
        rates: Callable[[int], Sequence[float]] | None = None, clip_norm: float | None = None,
        clip_value: float | None = None, deadline: float = float("inf"),
        stop: Callable[[], bool] | None = None, outputs: bool = False,
        looks: Sequence[int] | None = None,
    ) -> tuple[list[Passed], KeyboardInterrupt | NotFinite | None]:  # fmt: skip
        """Several epochs without Python in between, measured on other rows after each.

        Parameters
        ----------
        rows, batch_size, rates, clip_norm, clip_value, deadline, stop : see
            `layerwise.engine.torch.train_epoch`; the rates' steps are counted through all epochs
        orders : int64 tensor of shape (n_epochs, n_rows), the shuffled row numbers of each
        held : the rows that decide on the best epoch
        gain : what counts as one
        outputs : whether those of the rows that decide are wanted
        looks : for each epoch at how manieth steps to look, as in `watch`; none by default

        Returns
        -------
        the epochs that have ended, and what ended them before the others had their turn, if it was
        an error. A last epoch may be incomplete: the deadline came.
        """
        if rows.index is not None:
            orders = rows.index[orders]
        n_epochs, n = orders.shape
        self._begin(n, rows.X, batch_size, stop)
        drawn = [self._seed() for _ in range(n_epochs)]
        seeds = None if drawn[0] is None else np.array(drawn, dtype=np.int64)
        table = self._table(rates, n_epochs * rows.n_steps(batch_size))
        answers = None
        if outputs:
            answers = torch.empty(n_epochs, len(held), self.core.n_outputs, dtype=self.dtype)
        error: KeyboardInterrupt | NotFinite | None = None
        given = self._given(rows)
        try:
            self.core.epochs(
                *given, orders.numpy(), batch_size, self.kind, table, clip_norm or 0.0,
                clip_value or 0.0, _left(deadline), stop,
                given[:3] if held is rows else self._given(held)[:3],
                None if held.index is None else held.index.numpy(), seeds,
                [0] * n_epochs if looks is None else list(looks),
                None if answers is None else answers.numpy(), gain.best, gain.min_delta,
                gain.epoch - gain.best_epoch, gain.patience, gain.epoch > 0,
            )  # fmt: skip
        except KeyboardInterrupt as interrupt:
            error = interrupt
        finally:
            self._after(table)
        told = self.core.told
        passed = [
            Passed(_epoch(one.outcome), one.loss, one.ended, kept=i == told.best,
                   outputs=None if answers is None else answers[i],
                   seen=_seen(one.seen) if looks and looks[i] else None)
            for i, one in enumerate(told.passed)
        ]  # fmt: skip
        last = told.last
        if last.bad_from >= 0:
            error = self._not_finite(last, rows, orders[len(passed)])
        elif last.steps:
            passed.append(Passed(_epoch(last), float("nan"), time.monotonic()))
        return passed, error

    def _table(
        self, rates: Callable[[int], Sequence[float]] | None, n_steps: int
    ) -> np.ndarray | None:
        """The rate of each run of parameters at each step."""
        if rates is None or not n_steps:
            return None
        each = np.array([rates(step) for step in range(n_steps)], dtype=np.float64)
        return np.ascontiguousarray(each[:, [number for _, number in self.runs]])

    def _begin(self, n: int, X: Any, batch_size: int, stop: Callable[[], bool] | None) -> None:
        """What comes before every call that trains, on n rows an epoch."""
        lone = n == 1 or (batch_size == 1 and n > 2)  # a last row alone joins the one before
        if lone and self._normed():  # what torch's batch normalisation says
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{torch.Size([1, X.shape[1]])}"
            )
        if stop is not None and stop():
            raise KeyboardInterrupt
        self._set_options()
        if self._versions() != self.versions:  # by a callback between two epochs, for example
            self._load_weights()

    def _seed(self) -> int | None:
        """Dropout goes on from the generator that its layers draw from in torch."""
        for layer in self.layers:
            if layer.planned[0] == "Dropout" and layer.planned[4] > 0:
                generator: Any = self.dropout or getattr(layer.module, "generator", None)
                return int(torch.randint(2**62, (), generator=generator))
        return None

    def _after(self, table: np.ndarray | None) -> None:
        if table is not None:  # the rate of the last step, as a schedule leaves it
            for one, (_, number) in zip(self.core.groups, self.runs):
                self.optimizer.param_groups[number]["lr"] = one.lr
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # for torch's schedulers

    def _not_finite(self, told: Any, rows: Rows, order: Tensor) -> NotFinite:
        self.store()
        bad = order[told.bad_from : told.bad_to]
        return NotFinite(told.steps, rows.X[bad], rows.y[bad])  # type: ignore[index]

    def measure(
        self, rows: Rows, batch_size: int = 0, *,
        score: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    ) -> tuple[float, dict[str, float]]:  # fmt: skip
        """See `layerwise.engine.torch.measure`; the size of a batch is the core's business."""
        index = None if rows.index is None else rows.index.numpy()
        outputs = None
        if score:
            outputs = torch.empty(len(rows), self.core.n_outputs, dtype=self.dtype)
        total, weight = self.core.measure(
            *self._given(rows), index, None if outputs is None else outputs.numpy()
        )
        scored = {}
        if score and outputs is not None:
            y: Any = rows.y
            scored = score(outputs, y if rows.index is None else y[rows.index])
        return total / weight if weight else float("nan"), scored

    def predict(self, X: Tensor) -> Tensor:
        """Raw outputs in evaluation mode."""
        outputs = torch.empty(len(X), self.core.n_outputs, dtype=self.dtype)
        self.core.predict(_rows(X, self.dtype), outputs.numpy())
        return outputs

    def gradients(self, rows: Rows) -> tuple[float, list[Tensor]]:
        """Loss and gradients of one batch of all the rows: for tests and traces."""
        seed = self._seed()
        if seed is not None:
            self.core.seed(seed)
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
        return _seen(self.core.seen())

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


def _epoch(told: Any) -> Epoch:
    return Epoch(told.loss, told.steps, told.rows, told.complete)


def _seen(sums: Any) -> Seen:
    layers, parameters = sums
    return seen_of([LayerSums(*one) for one in layers], [ParameterSums(*one) for one in parameters])


def _left(deadline: float) -> float:
    return min(deadline - time.monotonic(), 1e300)


def _rows(X: Any, dtype: torch.dtype) -> np.ndarray:
    if not isinstance(X, Tensor) or X.dim() != 2:
        raise Refused("X is not one tensor of shape (N, columns)")
    if X.dtype != dtype or X.device.type != "cpu" or X.layout != torch.strided:
        raise Refused(f"X is {X.dtype} on {X.device} and the network {dtype} on cpu")
    return _array(X, dtype)


def _array(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    """The tensor as an array, shared where its layout and type are right already."""
    return tensor.detach().to(dtype).contiguous().numpy()
