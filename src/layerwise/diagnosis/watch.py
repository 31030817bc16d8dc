"""`layerwise.watch`: look on while somebody's own loop trains, and say what went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy, deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.diagnosis.attach import attached
from layerwise.diagnosis.case import Case, as_tensor, optimizers_of
from layerwise.diagnosis.finding import Findings
from layerwise.diagnosis.locate import locate
from layerwise.diagnosis.reading import Reading, mean_loss, read_loss
from layerwise.diagnosis.rows_seen import RowsSeen
from layerwise.diagnosis.stepping import Stepping
from layerwise.diagnosis.verdict import judge
from layerwise.diagnosis.watched import BadValue, Watched
from layerwise.training.checks import check_model
from layerwise.training.losses import kind_of


def watch(
    model: nn.Module,
    loss: Any = None,
    optimizer: Any = None,
    *,
    X: Any = None,
    y: Any = None,
    X_val: Any = None,
    y_val: Any = None,
    names: Sequence[str] | None = None,
    every: int = 25,
) -> Watch:
    """Watch any PyTorch loop, whoever wrote it: ``with lw.watch(model, loss, optimizer) as w:``.

    Inside the context hooks look at the model's calls, at ``backward`` and at the optimizers'
    steps; most of a step's findings come from a few steps that are seen closely. What is not given
    is learnt from the loop: rows, targets, batch size and epochs, and the loss from its graph where
    it is a function or a formula. Afterwards ``w.findings`` has what `layerwise.doctor` finds, and
    what only a training shows. An error that the loop raises is raised as it is, with the doctor's
    findings added as a note.

    Parameters
    ----------
    model : the module that the loop trains
    loss : as the loop computes it: an nn module, a function such as ``F.cross_entropy``, or a name
        of `layerwise.fit`; None if the loop knows best
    optimizer : one, or several; every optimizer that steps on this model's weights counts anyway
    X, y, X_val, y_val : rows, if they are not to be learnt from the loop
    names : of the columns of X
    every : one of so many steps is seen closely, and some more in the first 50

    Returns
    -------
    Watch
        A context manager with ``findings``, and ``watched``, what was seen.

    Examples
    --------
    >>> X, y = torch.randn(200, 3), torch.randn(200, 1)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> with watch(model, nn.MSELoss(), optimizer) as w:
    ...     for _ in range(20):
    ...         nn.functional.mse_loss(model(X), y).backward()
    ...         optimizer.step()
    >>> w.findings[0].rule
    'no-zero-grad'
    """
    check_model(model)
    if not isinstance(every, int) or every < 1:
        from layerwise.errors import SettingError

        raise SettingError(f"every has to be a whole number of at least 1; got {every!r}")
    return Watch(model, loss, optimizer, (X, y, X_val, y_val), names, every)


class Watch:
    """What `watch` returns: the context, and afterwards what was found.

    Attributes
    ----------
    watched : the evidence, for those who want to see it
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        optimizer: Any,
        rows: tuple[Any, Any, Any, Any],
        names: Sequence[str] | None,
        every: int,
    ) -> None:
        self._model, self._loss, self._every = model, loss, every
        self._given = Case.of(
            model, loss, optimizer, rows[0], rows[1], X_val=rows[2], y_val=rows[3], names=names
        )
        self._said = optimizers_of(optimizer)
        self._skipped: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self.watched = Watched(self._given)
        self._rows = RowsSeen(self._given.n_rows)
        self._memo: dict[int, Any] = {}
        self._start: nn.Module | None = None
        self._optimizers: dict[int, Stepping] = {}
        self._inputs: Any = None
        self._outputs: Any = None
        self._open = self._mode = False  # a forward that waits for its backward, and its mode
        self._loader: Any = None
        self._kind, self._sum, self._scale = kind_of(self._loss), False, 1.0
        self._pairs: tuple[Any, Any] | None = None  # of the loss's last call with gradients
        self._valid: list[tuple[float, int]] = []
        self._shape: tuple[int, ...] | None = None  # of a row's outputs, if the loop changes it
        self._found: Findings | None = None
        self._stack = ExitStack()
        self._stepped = 0
        self._ended = False  # by itself, so that all its epochs were made
        self._by_hand = Stepping()

    # ------------------------------------------------------------ the context

    def __enter__(self) -> Watch:
        self._reset()
        try:
            self._start = deepcopy(self._model, self._memo)
        except Exception as error:  # some modules cannot be copied: then less can be said
            self._skipped.append(f"the model at its start: it cannot be copied ({error})")
        self._names = {id(p): name for name, p in self._model.named_parameters()}
        self._flat = frozenset(n for n, p in self._model.named_parameters() if p.dim() < 2)
        self._by_hand = Stepping(
            None, [(n, p) for n, p in self._model.named_parameters() if p.requires_grad]
        )
        for one in self._said:
            self._meet(one)
        self._no_outputs = self._stack.enter_context(
            attached(
                self._model, self._loss, entered=self._safe(self._entered),
                left=self._safe(self._left), before_backward=self._safe(self._before_backward),
                after_backward=self._safe(self._after_backward),
                before_step=self._safe(self._before_step),
                after_step=self._safe(self._after_step), lost=self._safe(self._lost),
                started=self._safe(self._started),
            )
        )  # fmt: skip
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stack.close()
        self._ended = error is None
        self._close()
        if isinstance(error, Exception):
            self._found = judge(self.watched, error, self._skipped)
            if self._found.alarms:
                error.add_note(f"\nlayerwise: {self._found.alarms[0]}")

    @property
    def findings(self) -> Findings:
        """What was found so far; of the whole loop once the context has been left."""
        if self._found is None:
            if self._stack_open:
                self._close()
                return judge(self.watched, None, self._skipped)
            self._found = judge(self.watched, None, self._skipped)
        return self._found

    @property
    def _stack_open(self) -> bool:
        return bool(self._stack._exit_callbacks)  # type: ignore[attr-defined]

    def _safe(self, look: Callable[..., None]) -> Callable[..., None]:
        """The same, but a mistake of the onlooker's never stops the loop."""

        def looked(*args: Any) -> None:
            try:
                look(*args)
            except Exception as error:
                self._skipped.append(f"{look.__name__}: {type(error).__name__}: {error}")

        return looked

    # ------------------------------------------------------------ what happens in the loop

    def _entered(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        seen = self.watched
        seen.forwards += 1
        if not torch.is_grad_enabled():
            seen.loose += module.training
            seen.blind += 1
            self._loader = None
            return
        if self._open:
            seen.orphans += self._mode
        self._inputs, self._mode, self._open = args or kwargs, module.training, True

    def _left(self, module: nn.Module, args: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            self._outputs = outputs

    def _lost(self, loss: Any, args: Any, value: Any) -> None:
        """The loss was called: with gradients it is about to learn, without it measures."""
        if torch.is_grad_enabled():
            self._pairs = args if len(args) >= 2 else None
        elif isinstance(value, Tensor) and value.numel() == 1 and args:
            self._valid.append((float(value), len(args[0]) if args[0].dim() else 1))

    def _started(self, loader: Any) -> None:
        self.watched.started += 1
        self._loader = loader

    def _before_backward(self, tensors: Any) -> None:
        loss = tensors if isinstance(tensors, Tensor) else next(iter(tensors), None)
        for one in self._optimizers.values():
            one.look_for_gradients()
        if not self._stepped:
            self._by_hand.pass_by_hand()
        if not self._open or not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        self._open = False
        seen = self.watched
        if self._rows.batch(self._inputs, self._loader):
            self._end_epoch()
        self._loader = None
        value = float(loss.detach())
        reading = None
        if self._rows.collecting or not seen.losses:
            reading = self._read(loss)
        n = self._rows.last
        if not seen.losses:
            self._settle(value, reading, n)
        if not math.isfinite(value) and seen.bad is None:
            if self._all_ignored(reading):
                self._outputs = self._pairs = None
                return  # a mean over no row at all, whose gradient is 0
            where, told = locate(self._model, self._inputs, self._answers(reading), self._outputs)
            seen.bad = BadValue(len(seen.losses), where, told, value)
            self._rows.close()
        if not self._mode:
            seen.eval_steps += 1
            if seen.first_eval is None and seen.eval_steps <= len(seen.losses):
                seen.first_eval = len(seen.losses)
        seen.losses.append(value / (n * self._scale if self._sum else self._scale))
        seen.weights.append(n)
        self._outputs = self._pairs = None

    def _after_backward(self) -> None:
        if self._stepped < 6:
            for one in self._optimizers.values():
                one.made_gradients = one.made_gradients or one.has_gradients()

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        one = self._optimizers.get(id(optimizer)) or self._meet(optimizer)
        one.begin(self._due(one.steps))

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        one = self._optimizers[id(optimizer)]
        if one.mine:
            self._stepped += 1
            one.end(len(self.watched.starts) - 1, self._flat)

    def _due(self, step: int) -> bool:
        return step < 3 or step % self._every == 0 or (step < 50 and step % 5 == 0)

    # ------------------------------------------------------------ what it means

    def _meet(self, optimizer: Any) -> Stepping:
        """Get to know an optimizer, and copy it as that of the model at the start."""
        pairs = [
            (self._names[id(p)], p)
            for group in optimizer.param_groups
            for p in group["params"]
            if id(p) in self._names
        ]
        copied = None
        # a loop that makes a new optimizer for every step needs no copies of all of them
        few = len(self._optimizers) < 8
        if self._start is not None and few and (pairs or optimizer in self._said):
            try:
                copied = deepcopy(optimizer, self._memo)
            except Exception as error:  # an optimizer of somebody's own
                self._skipped.append(f"an optimizer that cannot be copied ({error})")
        one = Stepping(optimizer, pairs, copied)
        self._optimizers[id(optimizer)] = one
        return one

    def _read(self, loss: Tensor) -> Reading | None:
        """What this batch's outputs and targets were; the targets are kept."""
        reading = None
        if self._pairs is None or not isinstance(self._pairs[1], Tensor):
            try:
                reading = read_loss(loss, self._outputs)
            except (RuntimeError, AttributeError):  # a graph that was freed, or another torch
                reading = None
        self._rows.answers(self._answers(reading))
        return reading

    def _all_ignored(self, reading: Reading | None) -> bool:
        """Whether every label of the batch is the one that the loss leaves out."""
        y, ignored = self._answers(reading), getattr(self._loss, "ignore_index", -100)
        return (
            self._kind in _CLASSES and isinstance(y, Tensor) and not y.is_floating_point()
            and bool((y == ignored).all())
        )  # fmt: skip

    def _answers(self, reading: Reading | None) -> Any:
        if self._pairs is not None and isinstance(self._pairs[1], Tensor):
            return self._pairs[1].detach()
        return None if reading is None else reading.y

    def _settle(self, value: float, reading: Reading | None, n: int) -> None:
        """How the numbers that run backward compare with the mean of the loss."""
        self._kind = self._kind or (reading.kind if reading else "")
        seen = self.watched
        outputs, y = self._outputs, self._answers(reading)
        if reading is not None:
            outputs = reading.outputs
        elif self._pairs is not None:
            outputs = self._pairs[0]
        made = self._outputs
        if isinstance(made, Tensor) and isinstance(outputs, Tensor) and outputs.dim():
            same = made.shape == outputs.shape or made.numel() != outputs.numel()
            self._shape = None if same else tuple(outputs.shape[1:])
        if not self._kind or not isinstance(outputs, Tensor) or y is None:
            seen.comparable = bool(self._kind) and y is not None
            return
        mean: float | None = None
        if isinstance(self._loss, nn.Module) and self._pairs is not None:
            with torch.no_grad():
                mean = float(self._loss.forward(outputs.detach(), y).detach().mean())
            if getattr(self._loss, "reduction", "mean") == "sum":
                mean /= max(outputs.numel() if self._kind not in _CLASSES else n, 1)
        else:
            mean = mean_loss(self._kind, outputs.detach(), y)
        if not mean or not math.isfinite(mean) or not math.isfinite(value):
            return
        ratio = value / mean
        if abs(ratio - 1) < 0.01:
            return
        per = outputs.numel() / n if self._kind not in _CLASSES else 1
        if abs(ratio / (n * per) - 1) < 0.01:  # summed over the batch
            self._sum, self._scale = True, per
        elif ratio < 1 and abs(1 / ratio - round(1 / ratio)) < 0.02:  # a part, to accumulate
            self._scale = ratio
        else:
            seen.comparable = False

    def _end_epoch(self) -> None:
        seen = self.watched
        if len(seen.starts) == 1:
            self._no_outputs()
        if seen.starts:
            self._take_valid()
        seen.starts.append(len(seen.losses))

    def _take_valid(self) -> None:
        if self._valid:
            rows = sum(n for _, n in self._valid)
            self.watched.n_valid = rows
            self.watched.valid.append(sum(v * n for v, n in self._valid) / max(rows, 1))
            self._valid = []

    def _close(self) -> None:
        """Put together what was seen."""
        seen = self.watched
        self._take_valid()
        stepping = [one for one in self._optimizers.values() if one.mine]
        main = max(stepping, key=lambda one: one.steps, default=None)
        seen.kind = self._kind
        if main is not None:
            seen.steps, seen.rates = main.steps, main.rates
        seen.looks = sorted((x for o in stepping for x in o.looks), key=lambda look: look.step)
        seen.uncleared = max([one.longest for one in (*stepping, self._by_hand)])
        seen.empty_steps = max((one.empty for one in stepping), default=0)
        seen.absent_steps = max((one.absent for one in stepping), default=0)
        seen.momentum = max((one.momentum for one in stepping), default=0.0)
        seen.second_order = any(isinstance(o.optimizer, torch.optim.LBFGS) for o in stepping)
        if self._start is not None:
            before = dict(self._start.named_parameters())
            seen.changed = any(
                name in before and p.requires_grad and not _same(p, before[name])
                for name, p in self._model.named_parameters()
            )
            seen.trained = deepcopy(self._model) if seen.passes else None
        seen.case = self._case()
        for name in ("epochs", "baseline", "start", "end"):
            vars(seen).pop(name, None)

    def _case(self) -> Case:
        """All that is known by now, beside the model as it was at the start."""
        X, y = self._rows.table()
        if X is None and self._inputs is not None:
            args = self._inputs
            X = args[0] if isinstance(args, tuple) and len(args) == 1 else args
        given, rows, seen = self._given, self._rows, self.watched
        if given.X is not None and isinstance(given.y, Tensor) and not _other(given.y, y):
            X, y = given.X, given.y
        loss = self._loss
        if loss is None and self._kind:
            loss = getattr(F, self._kind)
        if self._shape is not None:
            loss = _after_shaping(loss, self._shape)
        copies = [one.copied for one in self._optimizers.values() if one.copied is not None]
        return Case(
            model=self._model if self._start is None else self._start, loss=loss,
            optimizers=self._said if self._start is None else tuple(copies),
            X=as_tensor(X) if isinstance(X, Tensor) else X, y=y,
            X_val=given.X_val, y_val=given.y_val, batch_size=rows.batch_size,
            # of a training that was spoilt the rows and epochs are not all there is
            epochs=len(seen.starts) or None if self._ended and seen.bad is None else None,
            drop_last=rows.drop_last, shuffle=rows.order, names=given.names,
            sampled=rows.sampled, original=self._model,
        )  # fmt: skip


_CLASSES = ("cross_entropy", "nll_loss")


def _other(given: Tensor, y: Any) -> bool:
    """Whether the loop turns the given targets into others before its loss sees them."""
    if not isinstance(y, Tensor):
        return False
    return y.dtype != given.dtype or y.shape[1:] != given.shape[1:]


def _after_shaping(loss: Any, shape: tuple[int, ...]) -> Any:
    """The loss, for outputs that the loop puts into another shape first."""
    compute = loss.forward if isinstance(loss, nn.Module) else loss
    if not callable(compute):
        return loss

    @wraps(compute)
    def shaped(outputs: Any, *rest: Any, **more: Any) -> Any:
        other = isinstance(outputs, Tensor) and outputs.shape[1:] != shape
        return compute(outputs.reshape(len(outputs), *shape) if other else outputs, *rest, **more)

    if not isinstance(loss, nn.Module):
        return shaped
    loss = copy(loss)
    loss.forward = shaped
    return loss


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a.detach(), b.detach().to(a.device)))
