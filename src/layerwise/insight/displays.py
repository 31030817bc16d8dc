"""Pictures with matplotlib, in scikit-learn's manner: made from a result, plotted, kept.

Each has ``plot(ax=None)``, which draws on the given axes or on its own and returns the display; the
axes are in ``ax_`` and the figure in ``figure_`` afterwards. matplotlib is imported when something
is plotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.errors import SettingError
from layerwise.insight.drawing import figure, share, shortened
from layerwise.text import count

if TYPE_CHECKING:
    from layerwise.insight.attribution import Attribution
    from layerwise.insight.dependence import PartialDependence
    from layerwise.insight.importance import Importance
    from layerwise.insight.landscape import Landscape
    from layerwise.insight.layers import Layers

BLUE, ORANGE, RED, GREEN, GREY = "#3182ce", "#dd6b20", "#e53e3e", "#38a169", "#718096"


class _Display:
    """Where something is drawn: axes given, or made."""

    ax_: Any
    figure_: Any

    def _axes(self, ax: Any, n_rows: int = 1, n_columns: int = 1, **options: Any) -> Any:
        """The given axes, as many as are needed, or new ones on a figure of their own."""
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError:
                raise SettingError(
                    "a picture needs matplotlib, which is not installed: pip install matplotlib"
                ) from None
            _, ax = pyplot.subplots(n_rows, n_columns, layout="constrained", **options)
        found = np.asarray(ax, dtype=object)
        if found.size != n_rows * n_columns:
            raise SettingError(f"this picture has {n_rows * n_columns} axes; got {found.size}")
        self.ax_ = found if found.size > 1 else found.reshape(-1)[0]
        self.figure_ = found.reshape(-1)[0].figure
        for one in found.reshape(-1):
            one.spines[["top", "right"]].set_visible(False)
        return self.ax_


class CurvesDisplay(_Display):
    """Losses and a metric over the epochs, with the epoch that was kept.

    Parameters
    ----------
    history : of a run or of `layerwise.fit`

    Examples
    --------
    >>> from layerwise.training.history import History
    >>> rows = [{"epoch": 1, "train_loss": 0.7}, {"epoch": 2, "train_loss": 0.4}]
    >>> CurvesDisplay(History(rows, 2)).names
    ['train_loss']
    """

    def __init__(self, history: Any) -> None:
        self.history = history

    @classmethod
    def from_run(cls, run: Any) -> CurvesDisplay:
        """Of a run, a history, or a fitted estimator, plotted."""
        return cls(getattr(run, "history", getattr(run, "history_", run))).plot()

    @property
    def names(self) -> list[str]:
        """The losses that there are."""
        return [n for n in ("train_loss", "valid_loss", "loss") if n in self.history.rows[0]]

    def plot(self, ax: Any = None) -> CurvesDisplay:
        """Draw on these axes, or on new ones."""
        ax = self._axes(ax, figsize=(6.4, 4))
        epochs = self.history["epoch"]
        colours = {"train_loss": BLUE, "valid_loss": ORANGE, "loss": GREEN}
        titles = {"train_loss": "training", "valid_loss": "validation", "loss": "training, at rest"}
        for name in self.names:
            members = [one for one in getattr(self.history, "members", []) if name in one.rows[0]]
            for one in members:  # the mean is of fewer and fewer of them: their own lines tell more
                ax.plot(one["epoch"], one[name], color=colours[name], alpha=0.25, linewidth=0.8)
            ax.plot(epochs, self.history[name], color=colours[name], label=titles[name])
        if self.history.best_epoch:
            ax.axvline(self.history.best_epoch, color=GREY, linestyle=":", linewidth=1,
                       label=f"kept: epoch {self.history.best_epoch}")  # fmt: skip
        values = [v for name in self.names for v in self.history[name] if v > 0 and np.isfinite(v)]
        if values and max(values) > 30 * min(values):
            ax.set_yscale("log")
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False)
        return self


class LayersDisplay(_Display):
    """Four pictures of the layers over the epochs: gradients, updates, dead and saturated units.

    Parameters
    ----------
    layers : of a run (``run.layers``), or `Layers.of` a history
    """

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    @classmethod
    def from_run(cls, run: Any) -> LayersDisplay:
        """Of a run, plotted."""
        return cls(run.layers).plot()

    def plot(self, ax: Any = None) -> LayersDisplay:
        """Draw on these four axes, or on new ones."""
        axes = np.reshape(self._axes(ax, 2, 2, figsize=(9, 6), sharex=ax is None), -1)
        kinds = (("gradient", "gradient (norm)"), ("ratio", "update ÷ weight"),
                 ("dead", "dead units"), ("saturated", "saturated outputs"))  # fmt: skip
        for one, (key, title) in zip(axes, kinds):
            self._panel(one, key, title)
        return self

    def _panel(self, ax: Any, key: str, title: str) -> None:
        from matplotlib import colormaps
        from matplotlib.ticker import PercentFormatter

        shares = key in ("dead", "saturated")
        names = [
            name for name in self.layers.names
            if self.layers.series(name, "saturated" if shares else key)[0]
        ]  # fmt: skip
        for i, name in enumerate(names):
            epochs, values = self.layers.series(name, key)
            colour = colormaps["viridis"](0.9 * i / max(len(names) - 1, 1))
            label = f"{shortened(name, 16)} {self.layers.kinds[name]}"
            ax.plot(epochs, values, color=colour, label=label, marker="." * (len(epochs) < 30))
        if shares:
            ax.set_ylim(-0.03, 1.03)
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        elif names:
            ax.set_yscale("log")
        if key == "ratio":
            ax.axhspan(1e-4, 1e-2, color=GREEN, alpha=0.1, linewidth=0)
        ax.set_title(title, loc="left", fontsize="medium")
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        if not names:
            ax.text(0.5, 0.5, "no such layer", ha="center", va="center", color=GREY,
                    transform=ax.transAxes)  # fmt: skip
        elif len(names) <= 8:
            ax.legend(frameon=False, fontsize="small")


class ImportanceDisplay(_Display):
    """Permutation importances as points with their 95 % intervals.

    Parameters
    ----------
    importance : as `layerwise.importance` gives it
    """

    def __init__(self, importance: Importance) -> None:
        self.importance = importance

    @classmethod
    def from_run(cls, run: Any, data: Any = None, **options: Any) -> ImportanceDisplay:
        """Shuffle the columns of a run's rows, or of the given ones, and plot."""
        from layerwise.insight.importance import importance

        return cls(importance(run, data, **options)).plot()

    def plot(self, ax: Any = None, *, most: int = 20) -> ImportanceDisplay:
        """Draw on these axes, or on new ones; so many columns at most, the important ones."""
        found = self.importance
        n = min(most, len(found.columns))
        ax = self._axes(ax, figsize=(6.4, 1.2 + 0.32 * n))
        places = np.arange(n)[::-1]
        mean, ends = found.importances_mean[:n], found.intervals[:n]
        ax.axvline(0, color=GREY, linewidth=0.8)
        ax.hlines(places, ends[:, 0], ends[:, 1], color=BLUE, linewidth=2, alpha=0.45)
        ax.plot(mean, places, "o", color=BLUE)
        ax.set_yticks(places, [shortened(name, 28) for name in found.columns[:n]])
        ax.set_xlabel(f"{found.metric.replace('_', ' ')} gets worse by (95 % interval)")
        kind = f"{found.rows} row" if found.rows != "given" else "row"
        ax.set_title(
            f"shuffled on {count(found.n_rows, kind)}; unshuffled it is {figure(found.score)}",
            loc="left", fontsize="small",
        )  # fmt: skip
        return self


class PartialDependenceDisplay(_Display):
    """The mean answer against raw columns, with thin lines for single rows.

    Parameters
    ----------
    found : one or several, as `layerwise.partial_dependence` gives them
    """

    def __init__(self, found: Sequence[PartialDependence]) -> None:
        self.found = list(found)

    @classmethod
    def from_run(
        cls, run: Any, columns: Sequence[str], data: Any = None, **options: Any
    ) -> PartialDependenceDisplay:
        """Of these columns of a run's rows, or of the given ones, plotted side by side."""
        from layerwise.insight.dependence import partial_dependence

        return cls([partial_dependence(run, one, data, **options) for one in columns]).plot()

    def plot(self, ax: Any = None, *, individual: int = 30) -> PartialDependenceDisplay:
        """Draw on these axes, one for each column, or on new ones."""
        n = len(self.found)
        axes = self._axes(ax, 1, n, figsize=(3.6 * n + 1, 3.6), sharey=ax is None)
        for one, found in zip(np.reshape(np.asarray(axes, dtype=object), -1), self.found):
            self._panel(one, found, individual)
        return self

    def _panel(self, ax: Any, found: PartialDependence, individual: int) -> None:
        single = len(found.answers) == 1
        if found.kind in ("number", "datetime"):
            x = np.array(found.values)
            if single:
                for line in found.individual[:individual, :, 0]:
                    ax.plot(x, line, color=GREY, alpha=0.2, linewidth=0.8)
            for k, name in enumerate(found.answers):
                ax.plot(x, found.average[:, k], linewidth=2, label=name,
                        color=BLUE if single else f"C{k}")  # fmt: skip
            if found.kind == "datetime":
                ax.tick_params(axis="x", rotation=30)
        else:
            places = np.arange(len(found.values))
            wide = 0.8 / len(found.answers)
            for k, name in enumerate(found.answers):
                left = places + (k - (len(found.answers) - 1) / 2) * wide
                ax.bar(left, found.average[:, k], wide, label=name,
                       color=BLUE if single else f"C{k}")  # fmt: skip
            ax.set_xticks(places, [shortened(str(v), 14) for v in found.values],
                          rotation=30 if len(places) > 3 else 0)  # fmt: skip
        ax.set_xlabel(found.column)
        if single:
            ax.set_ylabel(found.answers[0])
        else:
            ax.legend(frameon=False, fontsize="small")


class AttributionDisplay(_Display):
    """The parts of one answer as bars to both sides of 0.

    Parameters
    ----------
    attribution : as `layerwise.attribute` gives it
    """

    def __init__(self, attribution: Attribution) -> None:
        self.attribution = attribution

    @classmethod
    def from_run(cls, run: Any, data: Any, row: int = 0, **options: Any) -> AttributionDisplay:
        """Explain these rows and plot one of them."""
        from layerwise.insight.attribution import attribute

        return cls(attribute(run, data, **options)).plot(row)

    def plot(self, row: int = 0, ax: Any = None, *, most: int = 15) -> AttributionDisplay:
        """Draw one row on these axes, or on new ones."""
        found = self.attribution
        order = found.order(row)[:most]
        ax = self._axes(ax, figsize=(6.4, 1.2 + 0.32 * len(order)))
        places, values = np.arange(len(order))[::-1], found.values[row, order]
        ax.barh(places, values, color=[BLUE if value >= 0 else ORANGE for value in values])
        ax.axvline(0, color=GREY, linewidth=0.8)
        labels = [shortened(f"{found.columns[k]} = {found.cells[row, k]}", 34) for k in order]
        ax.set_yticks(places, labels)
        ax.set_xlabel(f"part in {found.what[row]}")
        ax.set_title(
            f"{found.what[row]} {figure(found.answer[row])}, of the baseline "
            f"{figure(found.base[row])}",
            loc="left", fontsize="small",
        )  # fmt: skip
        return self


class LandscapeDisplay(_Display):
    """The loss around the weights: contours with the path of training, or a line.

    Parameters
    ----------
    landscape : as `layerwise.landscape` gives it
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape

    @classmethod
    def from_model(cls, model: Any, *rows: Any, **options: Any) -> LandscapeDisplay:
        """Look around the weights of a module or a run, and plot."""
        from layerwise.insight.landscape import landscape

        return cls(landscape(model, *rows, **options)).plot()

    def plot(self, ax: Any = None) -> LandscapeDisplay:
        """Draw on these axes, or on new ones."""
        found = self.landscape
        ax = self._axes(ax, figsize=(6.4, 4.6))
        told = f"loss {figure(found.loss)} at the weights"
        if found.plane is None:
            ax.plot(found.steps, found.line, color=BLUE)
            ax.plot(0, found.loss, "o", color=RED)
            ax.set(xlabel="steps along the direction", ylabel="loss")
        else:
            self._plane(ax)
            unit = ("", "") if found.explained is None else tuple(
                f" ({share(one)} of the path's variance)" for one in found.explained
            )  # fmt: skip
            ax.set(xlabel=f"first direction{unit[0]}", ylabel=f"second direction{unit[1]}")
        ax.set_title(told, loc="left", fontsize="small")
        return self

    def _plane(self, ax: Any) -> None:
        """Contours at equal steps of the loss's logarithm above its least value."""
        from matplotlib.colors import LogNorm

        found = self.landscape
        assert found.plane is not None  # noqa: S101  asked before
        plane = np.ma.masked_invalid(found.plane)
        low, high = float(plane.min()), float(plane.max())
        if low > 0 and high > 3 * low:
            levels = np.geomspace(low, high, 16)
            shown = ax.contourf(found.x, found.y, plane, levels, cmap="viridis", norm=LogNorm())
        else:
            levels = np.linspace(low, high if high > low else low + 1, 16)
            shown = ax.contourf(found.x, found.y, plane, levels, cmap="viridis")
        ax.contour(found.x, found.y, plane, levels, colors="white", linewidths=0.4, alpha=0.6)
        ticks = levels[::3]
        bar = self.figure_.colorbar(shown, ax=ax, label="loss", ticks=ticks)
        bar.ax.set_yticklabels([figure(tick) for tick in ticks])
        bar.ax.minorticks_off()
        if found.path is not None:
            ax.plot(*found.path.T, ".-", color="white", linewidth=1, markersize=3, alpha=0.9)
            ax.annotate(f"epoch {found.epochs[0]}", found.path[0], color="white", fontsize="small",
                        xytext=(4, 4), textcoords="offset points")  # fmt: skip
        ax.plot(0, 0, "o", color=RED, markersize=6)
