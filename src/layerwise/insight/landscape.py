"""The loss around the weights: along one direction, over a plane, with the path of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from layerwise.engine.torch import Rows, call, take
from layerwise.errors import DataError, SettingError
from layerwise.insight.drawing import figure
from layerwise.insight.subject import model_of, subject_of
from layerwise.network.keep import kept
from layerwise.text import count, width, wrapped
from layerwise.training.fit import EpochEnd
from layerwise.training.losses import loss_of
from layerwise.training.source import rows_of

if TYPE_CHECKING:
    from layerwise.insight.displays import LandscapeDisplay

Weights = dict[str, Tensor]
_SHADES = " ░▒▓█"


class Snapshots:
    """A callback that keeps the weights of some epochs, for the path in a landscape.

    Every epoch is kept until there are `most`; then every second one is dropped, and from there on
    every second epoch is kept, and so on.

    Parameters
    ----------
    most : how many to keep at most

    Attributes
    ----------
    epochs : which epochs were kept
    weights : of each of them a dict from the parameters' names to copies of them

    Examples
    --------
    >>> import layerwise as lw
    >>> path = Snapshots()
    >>> X = torch.linspace(-1, 1, 64)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> _ = lw.fit(model, (X, X**2), "mse", epochs=5, callbacks=[path])
    >>> path.epochs
    [1, 2, 3, 4, 5]
    """

    def __init__(self, most: int = 50) -> None:
        if most < 2:
            raise SettingError(f"most has to be at least 2; got {most}")
        self.most, self.every = most, 1
        self.epochs: list[int] = []
        self.weights: list[Weights] = []

    def __call__(self, event: EpochEnd) -> None:
        """Keep the weights, if it is the turn of this epoch; of a bag only the first network's."""
        epoch = event.row["epoch"]
        if event.network is None or getattr(event, "member", 1) != 1 or (epoch - 1) % self.every:
            return
        self.epochs.append(epoch)
        self.weights.append(_copies(event.network))
        if len(self.epochs) > self.most:
            self.epochs, self.weights = self.epochs[::2], self.weights[::2]
            self.every *= 2

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass(frozen=True, repr=False, eq=False)
class Landscape:
    """Loss along one direction and over a plane of two; prints as a picture.

    Attributes
    ----------
    steps : array of shape (n,): how far from the weights, in units of the directions
    line : array of shape (n,): the loss that far along the first direction
    x, y : arrays of shapes (n,): the places of the plane along both directions
    plane : array of shape (n, n): the loss at ``plane[j, i]`` of ``x[i], y[j]``; or None
    loss : at the weights themselves, which are at 0, 0
    path : array of shape (n_snapshots, 2): where the training went, or None
    epochs : of the path
    explained : how much of the path's variance lies along each direction, or None
    n_rows : on how many rows the loss is
    """

    steps: np.ndarray
    line: np.ndarray
    x: np.ndarray
    y: np.ndarray
    plane: np.ndarray | None
    loss: float
    path: np.ndarray | None
    epochs: tuple[int, ...]
    explained: tuple[float, float] | None
    n_rows: int

    @property
    def sharpness(self) -> float:
        """Curvature of the loss along the first direction at the weights (second difference)."""
        middle = len(self.steps) // 2
        step = float(self.steps[1] - self.steps[0])
        a, b, c = (float(self.line[middle + k]) for k in (-1, 0, 1))
        return (a - 2 * b + c) / step**2

    def plot(self, ax: Any = None) -> LandscapeDisplay:
        """Contours with the path, or the line where there is no plane, with matplotlib."""
        from layerwise.insight.displays import LandscapeDisplay

        return LandscapeDisplay(self).plot(ax)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    def __str__(self) -> str:
        told = f"loss {figure(self.loss)} at the weights, on {count(self.n_rows, 'row')}"
        if self.plane is None:
            return "\n".join([wrapped(told), "", *self._profile()])
        if self.explained is not None:
            share = 100 * sum(self.explained)
            told += f"; the plane holds {share:.0f} % of what the path of training varies"
        low, high = float(np.nanmin(self.plane)), float(np.nanmax(self.plane))
        legend = f"darker is lower: {figure(low)} to {figure(high)}, log scale; ● the weights"
        legend += "; · the path" if self.path is not None else ""
        return "\n".join([wrapped(told), "", *self._map(), "", wrapped(legend)])

    __repr__ = __str__

    def _profile(self) -> list[str]:
        """The line as bars, one below the other."""
        low, high = float(np.nanmin(self.line)), float(np.nanmax(self.line))
        room = width() - 24
        return [
            f"{figure(step):>8} {figure(value):>9} "
            f"{'█' * round(1 + (room - 1) * (value - low) / ((high - low) or 1.0))}"
            for step, value in zip(self.steps.tolist(), self.line.tolist())
            if np.isfinite(value)
        ]

    def _map(self) -> list[str]:
        """The plane as shades, two columns for a step, since characters are tall."""
        assert self.plane is not None  # noqa: S101  asked before
        plane = np.log(np.maximum(self.plane - np.nanmin(self.plane), 0) + 1e-3 * _span(self.plane))
        low, span = np.nanmin(plane), _span(plane)
        cells = [
            [_SHADES[-1 - _shade((value - low) / span)] * 2 for value in row] for row in plane[::-1]
        ]

        def put(point: Sequence[float], mark: str) -> None:
            i = int(np.abs(self.x - point[0]).argmin())
            j = int(np.abs(self.y - point[1]).argmin())
            cells[len(cells) - 1 - j][i] = mark

        for point in () if self.path is None else self.path:
            put(point, "· ")
        put((0.0, 0.0), "● ")
        return ["".join(row).rstrip() for row in cells]


def _span(values: np.ndarray) -> float:
    return float(np.nanmax(values) - np.nanmin(values)) or 1.0


def _shade(place: float) -> int:
    return len(_SHADES) - 1 if np.isnan(place) else min(int(place * len(_SHADES)), len(_SHADES) - 1)


def landscape(
    model: Any,
    X: Any = None,
    y: Any = None,
    loss: str | nn.Module | Callable[..., Any] | None = None,
    *,
    path: Snapshots | Sequence[Mapping[str, Tensor]] | None = None,
    dimensions: int = 2,
    distance: float = 1.0,
    n_steps: int = 25,
    max_rows: int | None = 2000,
    random_state: int = 0,
) -> Landscape:
    """Look at the loss around a network's weights: is the bottom flat or sharp, is it one.

    Without a path the directions are random, and of each unit (a row of a weight matrix) as long as
    its weights, so that networks can be compared whatever their scale; biases and the weights of
    normalisations stay. Source: Li, Xu, Taylor, Studer & Goldstein (2018). With a path they are the
    two directions in which the training moved most (principal components of its snapshots, measured
    from the last weights), and the picture shows where it came from. The model is called in
    evaluation mode, and left as it was.

    Parameters
    ----------
    model : any module; or a run, whose training rows, loss and (first) network are taken
    X, y : rows, as `layerwise.fit` takes them; for a model of a table X is rows with the target
    loss : an nn loss module, a function of (outputs, y), or a name
    path : a `Snapshots` that was a callback of the training, or state dicts of it in their order
    dimensions : 1 for a line alone, 2 for a plane too
    distance : how far to look, in units of the weights' own length; a path has its own extent
    n_steps : in each direction; an even number gets one more, so that the weights are in the middle
    max_rows : at most so many rows, drawn at random; None for all
    random_state : of rows and directions; torch's random state is left alone

    Raises
    ------
    SettingError
        For a path of fewer than 3 snapshots, or of another network; for a module without rows.
    DataError
        For rows that are not made of numbers.

    Examples
    --------
    >>> X = torch.linspace(-1, 1, 64)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> found = landscape(model, X, X**2, "mse", n_steps=5)
    >>> found.plane.shape, found.steps.tolist()
    ((5, 5), [-1.0, -0.5, 0.0, 0.5, 1.0])
    """
    if dimensions not in (1, 2):
        raise SettingError(f"dimensions has to be 1 or 2; got {dimensions!r}")
    if n_steps < 3:
        raise SettingError(f"n_steps has to be at least 3; got {n_steps}")
    if not distance > 0:
        raise SettingError(f"distance has to be above 0; got {distance!r}")
    n_steps += 1 - n_steps % 2
    generator = torch.Generator().manual_seed(random_state)
    if isinstance(model, nn.Module):
        if X is None or y is None or loss is None:
            raise SettingError("give X, y and the loss; only a run has its own")
        rows, _ = rows_of((X, y), model, loss)
    else:
        model, rows, loss = _of_run(model, X)
    rows = _sample(rows, max_rows, generator)
    compute = loss_of(loss)
    middle = {name: p.detach() for name, p in model.named_parameters()}

    def at(*moves: tuple[float, Weights]) -> float:
        weights = dict(middle)
        for far, direction in moves:
            for name, part in direction.items():
                weights[name] = weights[name] + far * part
        outputs = functional_call(_Called(model), _inner(weights), (rows.X,))
        return float(compute(outputs, rows.y, rows.w))

    steps = np.linspace(-distance, distance, n_steps)
    x = y_ = steps
    route, explained = None, None
    with kept(model), torch.no_grad():
        model.eval()
        if path is None:
            first, second = (_filter_normalised(middle, generator) for _ in range(2))
        else:
            first, second, route, explained = _of_path(middle, _snapshots(path, middle))
            x, y_ = (_around(route[:, k], n_steps) for k in (0, 1))
            steps = _around(np.abs(route[:, 0]).max() * np.array([-1.0, 1.0]), n_steps, margin=0.0)
        here = at()
        line = np.array([at((far, first)) for far in steps.tolist()])
        plane = None
        if dimensions == 2:
            plane = np.array(
                [[at((a, first), (b, second)) for a in x.tolist()] for b in y_.tolist()]
            )
    epochs = tuple(getattr(path, "epochs", range(1, 1 + (0 if route is None else len(route)))))
    return Landscape(
        steps, line, x, y_, plane, here, route, epochs if route is not None else (), explained,
        len(rows),
    )  # fmt: skip


class _Called(nn.Module):
    """The model as one that takes its inputs as one argument, as `call` has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, X: Any) -> Any:
        return call(self.model, X)


def _inner(weights: Weights) -> Weights:
    return {f"model.{name}": value for name, value in weights.items()}


def _copies(network: nn.Module) -> Weights:
    return {name: p.detach().to("cpu", copy=True) for name, p in network.named_parameters()}


_LOSS = {"regression": "mse", "multiclass": "cross_entropy"}


def _of_run(model: Any, data: Any) -> tuple[nn.Module, Rows, str]:
    """The first network of a run or model, the rows it was trained on or is given, and its loss."""
    found = model_of(model)
    if data is None and hasattr(model, "rows"):
        part = model.rows().train
    else:
        part = subject_of(found, data).part
    y, w = found.target.encode(part.y), part.weight
    rows = Rows(
        torch.from_numpy(found.encode(part.table)),
        torch.from_numpy(y if y.dtype == np.int64 else y.astype(found.dtype)),
        None if w is None else torch.from_numpy(w.astype(found.dtype)),
    )
    said = found.recipe.get("loss", "auto")
    return found.network(0), rows, _LOSS.get(found.target.task, "bce") if said == "auto" else said


def _sample(rows: Rows, most: int | None, generator: torch.Generator) -> Rows:
    n = len(rows)
    if not n:
        raise DataError("there are no rows to measure the loss on")
    if most is None or n <= most:
        return rows
    some = torch.randperm(n, generator=generator)[:most].to(rows.device)
    w = None if rows.w is None else rows.w[some]
    return Rows(take(rows.X, some), take(rows.y, some), w)


def _filter_normalised(weights: Weights, generator: torch.Generator) -> Weights:
    """A random direction, of each unit as long as its weights; none for biases and scales."""
    found = {}
    for name, weight in weights.items():
        if weight.dim() < 2 or not weight.is_floating_point():
            continue
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        flat = drawn.flatten(1)
        lengths = weight.double().cpu().flatten(1).norm(dim=1, keepdim=True)
        flat *= lengths / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
        found[name] = drawn.to(weight.dtype).to(weight.device)
    if not found:
        raise SettingError("the model has no weight matrix, so there is no direction to look in")
    return found


# ---------------------------------------------------------------- the path


def _snapshots(path: Any, middle: Weights) -> list[Weights]:
    """The path's weights, checked to be of this network."""
    found = list(getattr(path, "weights", path))
    if len(found) < 3:
        raise SettingError(f"a path needs at least 3 snapshots; got {len(found)}")
    for number, one in enumerate(found, start=1):
        for name, weight in middle.items():
            if name not in one or one[name].shape != weight.shape:
                raise SettingError(
                    f"snapshot {number} is of another network: it has no {name!r} of shape "
                    f"{tuple(weight.shape)}"
                )
    return found


def _of_path(
    middle: Weights, snapshots: Sequence[Weights]
) -> tuple[Weights, Weights, np.ndarray, tuple[float, float]]:
    """The two main directions of the path, of length 1; its points; its share of variance."""

    def flat(weights: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([weights[name].double().cpu().reshape(-1) for name in middle])

    end = flat(middle)
    moved = torch.stack([flat(one) - end for one in snapshots])
    # not centred: the weights of the end, where all is measured from, are to lie in the plane
    _, values, directions = torch.linalg.svd(moved, full_matrices=False)
    both = directions[:2]
    points = (moved @ both.T).numpy()
    total = float(values.square().sum()) or 1.0
    a, b = (float(one**2) / total for one in values[:2])
    first, second = (_unflat(one, middle) for one in both)
    return first, second, points, (a, b)


def _unflat(direction: Tensor, like: Weights) -> Weights:
    parts = direction.split([weight.numel() for weight in like.values()])
    return {
        name: part.reshape(weight.shape).to(weight.dtype).to(weight.device)
        for part, (name, weight) in zip(parts, like.items())
    }


def _around(places: np.ndarray, n_steps: int, margin: float = 0.25) -> np.ndarray:
    """Equal steps over the path and the end at 0, with some room to each side."""
    low, high = min(float(places.min()), 0.0), max(float(places.max()), 0.0)
    room = margin * (high - low) or (0.0 if high > low else 1.0)
    return np.linspace(low - room, high + room, n_steps)
