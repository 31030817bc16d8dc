"""One forward and backward pass on a copy of the model, and what it shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.calls import ForwardCalls, LossCall, LossCalls, recognised
from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case
from layerwise.diagnosis.copying import copied, random_states_kept
from layerwise.diagnosis.finding import Finding
from layerwise.diagnosis.graph import Step, last_step, leaves, linear_runs
from layerwise.diagnosis.translate import translated
from layerwise.engine.torch import call
from layerwise.network.walk import Visit, Walk, walk
from layerwise.training.losses import loss_of

ROWS = 512  # enough to see shares of units; few enough for a second
INVENTED = 64
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(eq=False)
class FirstBatch:
    """What one batch shows.

    Attributes
    ----------
    case : all that was known before
    model, loss : copies, in training mode
    X, y : the rows of the pass, spread over the table; normal random numbers where none were given
    invented, y_invented : whether that is so
    found : the calls of the layers
    forward : what the first product with weights got, and which dropout was used
    losses : which losses of torch the loss called, with what
    value : what the loss gave; None if it failed
    gradients : of the model's parameters by name; empty if there was no backward pass
    strangers : weights that took part and that the model does not know: ids of the originals
    troubles : findings that exceptions were translated into
    skipped : what could not be done, in words
    originals : ids of the user's own parameters by those of the copies
    scales : the standard deviation of what each linear layer gave
    signals : the same from row to row, the mean over its units
    y_mended : whether the loss was computed on targets other than the given ones, which it refused
    stranger_shapes : of the strangers
    """

    case: Case
    model: nn.Module
    loss: Any
    X: Any
    y: Any
    invented: bool = False
    y_invented: bool = False
    found: Walk = field(default_factory=Walk)
    forward: ForwardCalls = field(default_factory=ForwardCalls)
    losses: LossCalls = field(default_factory=LossCalls)
    value: Tensor | None = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    strangers: list[int] = field(default_factory=list)
    troubles: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    originals: dict[int, int] = field(default_factory=dict)
    scales: dict[Visit, float] = field(default_factory=dict)
    signals: dict[Visit, float] = field(default_factory=dict)
    y_mended: bool = False
    stranger_shapes: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, case: Case) -> FirstBatch:
        """Copy the model and run some rows through it; nothing is raised."""
        first = cls(case, nn.Identity(), None, None, None)
        with random_states_kept(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model, loss, originals = copied(case.model, case.loss)
                X, y = _rows(case)
            except Exception as error:  # such as a model with an open file in it
                first.skipped.append(f"the model cannot be copied and run: {_said(error)}")
                return first
            model.train()
            first = cls(case, model, loss, X, y, originals=originals)
            first.invented, first.y_invented = X is None, y is None
            if X is None:
                first.X = _invented(model)
            if first.X is not None:
                try:
                    first._pass()
                except Exception as error:  # whatever it is, the user's work goes on
                    first.skipped.append(f"the first batch: {_said(error)}")
        return first

    def _pass(self) -> None:
        self._go_forward()
        if self.found.error is None and self.case.loss is not None:
            self._compare()
        if self.value is not None:
            self._go_backward()

    def _go_forward(self) -> None:
        self._hold_single_row_norms()
        for _ in range(2):
            self.forward, self.scales = ForwardCalls(), {}
            with self.forward:
                self.found = walk(self.model, self.X, self._measure)
            if self.found.error is None:
                return
            self._trouble("forward", self.found.error)
            other = _as_weights(self.X, self.model)
            if other is self.X:
                return
            self.X = other  # the type has been told; what else is there to see?

    def _hold_single_row_norms(self) -> None:
        if isinstance(self.X, Tensor) and self.X.dim() and len(self.X) == 1:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _measure(self, visit: Visit) -> None:
        """The spread of a linear layer's values, before anything may change them in place."""
        if isinstance(visit.module, nn.Linear) and visit.output is not None:
            values = visit.output.detach().double()
            self.scales[visit] = float(values.std(correction=0))
            self.signals[visit] = float(values.std(dim=0, correction=0).mean())

    def _compare(self) -> None:
        if self.outputs is None:
            return
        if self.y is None:
            self.y = _answers(self.case.kind, self.found.outputs)
            if self.y is None:
                return
        compute = self._compute()
        if compute is None:
            return
        if not self._try(compute, self.y):
            other = fitting(self._kind(), self.outputs, self.y)
            if other is not None:
                self.y_mended = True
                self._try(compute, other)

    def _compute(self) -> Callable[..., Any] | None:
        if isinstance(self.loss, str):
            return loss_of(self.loss)
        return self.loss if callable(self.loss) and not isinstance(self.loss, type) else None

    def _try(self, compute: Callable[..., Any], y: Any) -> bool:
        losses = LossCalls()
        self.losses, self.value = losses, None
        try:
            with losses:
                value = compute(self.found.outputs, y)
        except Exception as error:  # whatever a loss raises is told
            self._trouble("loss", error)
            return False
        if not isinstance(value, Tensor):
            self.skipped.append(f"the loss gave {type(value).__name__} and not a tensor")
            return True
        self.value = value
        if not losses.calls and isinstance(y, Tensor) and self.outputs is not None:
            losses.calls += recognised(value, self.outputs, y)
        return True

    def _go_backward(self) -> None:
        value = self.value
        if value is None or not value.requires_grad:
            self.strangers = []
            return
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        known = {id(p) for p in self.model.parameters()} | {
            id(p) for p in (self.case.original or self.case.model).parameters()
        }
        if isinstance(self.loss, nn.Module):
            known |= {id(p) for p in self.loss.parameters()}
        others = [one for one in leaves(value.grad_fn) if id(one) not in known]
        self.strangers = [self.originals.get(id(one), id(one)) for one in others]
        self.stranger_shapes = [tuple(one.shape) for one in others]
        if not named:
            return
        try:
            total = value if value.dim() == 0 else value.mean()
            found = torch.autograd.grad(
                total, list(named.values()), allow_unused=True, retain_graph=True
            )
        except Exception as error:
            self._trouble("backward", error)
            return
        self.gradients = dict(zip(named, found))

    def _trouble(self, phase: str, error: Exception) -> None:
        more = translated(error, self.case, phase, self.found, self.y)
        if more:
            self.troubles += more
        else:
            self.skipped.append(f"the {phase} pass failed: {_said(error)}")

    # ------------------------------------------------------------ what rules ask

    @property
    def outputs(self) -> Tensor | None:
        """The first tensor that the model returned."""
        given = self.found.outputs
        while isinstance(given, tuple | list) and given:
            given = given[0]
        if isinstance(given, dict):
            given = next((v for v in given.values() if isinstance(v, Tensor)), None)
        return given if isinstance(given, Tensor) else None

    def _kind(self) -> str:
        return self.losses.calls[-1].kind if self.losses.calls else self.case.kind

    @property
    def calls(self) -> list[LossCall]:
        """The losses of torch that were called, each with what it compared."""
        return self.losses.calls

    @cached_property
    def names(self) -> dict[int, str]:
        """The path of each parameter by its id."""
        return {id(p): name for name, p in self.model.named_parameters()}

    def step_behind(self, tensor: Tensor) -> Step:
        """The last operation behind a tensor, and the layer it is at."""
        return last_step(tensor, self.found.visits, self.names)

    @property
    def visits(self) -> list[Visit]:
        """The calls of the layers, in order."""
        return self.found.visits

    @cached_property
    def weighted(self) -> list[Visit]:
        """The calls of linear layers, in order."""
        return [one for one in self.visits if isinstance(one.module, nn.Linear)]

    @cached_property
    def last_layer(self) -> str:
        """The path of the last layer with a weight matrix; "forward" if none was called."""
        mats = [v for v in self.visits if any(p.dim() > 1 for p in v.module.parameters())]
        return mats[-1].name if mats else "forward"

    @cached_property
    def linear_runs(self) -> list[list[str]]:
        """Linear layers in a row without an activation, from a pass in evaluation mode."""
        outputs = self.evaluated(self.X)
        return [] if outputs is None else linear_runs(outputs, self.names)

    def evaluated(self, X: Any) -> Tensor | None:
        """The outputs for some rows in evaluation mode, with a graph; None where that fails."""
        with random_states_kept(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            modes = [(one, one.training) for one in self.model.modules()]
            self.model.eval()
            try:
                given = call(self.model, X)
            except Exception:
                return None
            finally:
                for module, mode in modes:
                    module.training = mode
        return given if isinstance(given, Tensor) else None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _rows(case: Case) -> tuple[Any, Any]:
    """Some rows spread over the table, so that sorted rows are all seen."""
    X, y = case.X, case.y
    n = case.n_rows
    if n is None:
        return (X if isinstance(X, tuple | list | dict) else None), y
    chosen = torch.arange(n) if n <= ROWS else torch.linspace(0, n - 1, ROWS).long()
    device = next((p.device for p in case.model.parameters()), torch.device("cpu"))
    X = X[chosen.to(X.device)].to(device)
    if isinstance(y, Tensor) and y.dim() and len(y) == n:
        y = y[chosen.to(y.device)].to(device)
    return X, y


def _invented(model: nn.Module) -> Tensor | None:
    """Rows for a model whose data are not known; None where their form cannot be told."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight
            return torch.randn(INVENTED, module.in_features, dtype=weight.dtype).to(weight.device)
        if isinstance(module, nn.Embedding | nn.RNNBase | nn.modules.conv._ConvNd):
            return None
    return None


def _as_weights(X: Any, model: nn.Module) -> Any:
    """X in the type of the first weights; X itself where that is its type."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if not isinstance(X, Tensor) or dtype is None or X.dtype == dtype:
        return X
    return X.to(dtype)


def _answers(kind: str, outputs: Any) -> Tensor | None:
    """Targets for a loss whose targets are not known."""
    if not isinstance(outputs, Tensor):
        return None
    if kind in CLASSES:
        return torch.randint(outputs.shape[1], outputs.shape[:1]) if outputs.dim() == 2 else None
    if kind in BINARY:
        return torch.randint(2, outputs.shape).to(outputs.dtype)
    return torch.randn_like(outputs) if kind in AMOUNTS else None


def fitting(kind: str, outputs: Tensor, y: Any) -> Tensor | None:
    """Targets like y that a loss would take, so that more can be seen after a first mistake.

    Parameters
    ----------
    kind : of the loss, as in ``torch.nn.functional``
    outputs : of the model
    y : which the loss refused

    Examples
    --------
    >>> fitting("cross_entropy", torch.zeros(2, 3), torch.tensor([1.0, 7.0]))
    tensor([1, 2])
    """
    if not isinstance(y, Tensor) or not y.numel() or y.is_complex():
        return None
    y = y.detach()
    if kind in CLASSES:
        if outputs.dim() != 2:
            return None
        if y.dim() == 2:
            y = y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0]
        if y.dim() != 1 or len(y) != len(outputs):
            return None
        return y.nan_to_num().long().clamp(0, outputs.shape[1] - 1)
    if kind not in (*BINARY, *AMOUNTS):
        return None
    if y.numel() == outputs.numel():
        y = y.reshape(outputs.shape)
    elif y.dim() < outputs.dim() and len(y) == len(outputs):
        y = y.reshape(len(y), *[1] * (outputs.dim() - 1)).expand_as(outputs)
    else:
        return None
    y = y.to(outputs.dtype)
    return y.nan_to_num().clamp(0, 1) if kind in BINARY else y
