"""One finding of the doctor, and many of them in the order in which they want mending."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from layerwise.text import count, wrapped

SEVERITIES = ("error", "warning", "note")
STAGES = ("static", "first_batch", "training", "after")

# What to mend first: what crashes and the data, the head and its loss, the network, the loop; what
# is only a symptom comes last.
_RANKS = (
    (
        "nan-in-data", "dtype-mismatch", "input-width", "labels-vs-outputs",
        "batchnorm-single-row", "inplace-update", "val-preprocessing", "unscaled-features",
        "unscaled-targets", "target-leakage", "sorted-no-shuffle", "batch-size",
        "class-imbalance", "constant-feature",
    ),
    (
        "target-shape-broadcast", "softmax-before-ce", "sigmoid-before-bce-logits",
        "missing-final-activation", "activation-on-logits", "softmax-axis", "output-range",
        "loss-task-mismatch", "loss-reduction",
    ),
    (
        "params-not-in-optimizer", "no-gradient-to-layer", "frozen-parameters", "symmetric-init",
        "init-scale", "linear-stack", "dropout-misuse",
    ),
    (
        "weights-not-updating", "no-zero-grad", "lr-too-high", "lr-too-low", "wrong-mode",
        "weight-decay-too-strong",
    ),
    (
        "non-finite-loss", "exploding-gradients", "vanishing-gradients", "dead-relu",
        "saturated-activation", "loss-stuck", "underfitting", "overfitting", "too-few-epochs",
    ),
)  # fmt: skip
RULES = tuple(name for names in _RANKS for name in names)
_RANK = {name: (rank, RULES.index(name)) for rank, names in enumerate(_RANKS) for name in names}

_STUCK = ("loss-stuck", "underfitting", "too-few-epochs")
_FLOODED = (
    "exploding-gradients", "dead-relu", "saturated-activation", "vanishing-gradients",
    "non-finite-loss", *_STUCK,
)  # fmt: skip
# A symptom that one of its causes explains is attached to the cause and not listed by itself.
EXPLAINS: dict[str, tuple[str, ...]] = {
    "nan-in-data": ("non-finite-loss", *_STUCK),
    "unscaled-features": ("lr-too-high", *_FLOODED, "init-scale"),
    "unscaled-targets": (
        "lr-too-high",
        "exploding-gradients",
        "non-finite-loss",
        "dead-relu",
        *_STUCK,
    ),
    "init-scale": _FLOODED,
    "symmetric-init": ("vanishing-gradients", *_STUCK),
    "lr-too-high": _FLOODED,
    "lr-too-low": _STUCK,
    "weight-decay-too-strong": ("lr-too-high", "vanishing-gradients", *_STUCK),
    "no-zero-grad": ("lr-too-high", "exploding-gradients", "non-finite-loss", *_STUCK),
    "weights-not-updating": _STUCK,
    "params-not-in-optimizer": _STUCK,
    "no-gradient-to-layer": ("vanishing-gradients", *_STUCK),
    "frozen-parameters": _STUCK,
    "target-shape-broadcast": _STUCK,
    "softmax-before-ce": ("vanishing-gradients", *_STUCK),
    "sigmoid-before-bce-logits": ("vanishing-gradients", *_STUCK),
    "missing-final-activation": ("non-finite-loss", "exploding-gradients", *_STUCK),
    "activation-on-logits": ("dead-relu", "vanishing-gradients", *_STUCK),
    "softmax-axis": _STUCK,
    "output-range": ("dead-relu", "saturated-activation", "vanishing-gradients", *_STUCK),
    "loss-task-mismatch": _STUCK,
    "labels-vs-outputs": ("non-finite-loss", *_STUCK),
    "linear-stack": ("underfitting",),
    "dropout-misuse": _STUCK,
    "batch-size": _STUCK,
    "class-imbalance": _STUCK,
    "loss-reduction": ("exploding-gradients", "non-finite-loss", *_STUCK),
    "wrong-mode": ("overfitting", *_STUCK),
    "vanishing-gradients": _STUCK,
    "saturated-activation": ("vanishing-gradients", *_STUCK),
    "dead-relu": ("vanishing-gradients", *_STUCK),
    "exploding-gradients": ("non-finite-loss", *_STUCK),
    "non-finite-loss": _STUCK,
    "loss-stuck": ("too-few-epochs",),
    "underfitting": ("loss-stuck", "too-few-epochs"),
}


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, how that was seen, and what to change.

    Attributes
    ----------
    rule : its id, e.g. "softmax-before-ce"
    severity : "error" (cannot work, or is surely not meant), "warning" (very likely costs
        quality) or "note" (worth knowing, often fine)
    where : a module's path as in ``named_modules``, or one of X, y, X_val, y_val, loss, optimizer,
        loop, forward, batch_size
    seen : what was seen, with its numbers
    healthy : what is healthy
    why : why it matters, in one sentence
    mend : the change to make, in code or as a flag
    stage : "static", "first_batch", "training" or "after"
    values : the numbers measured and their limits; column, row and step where there are some
    explains : the ids of symptoms that come of this cause and are therefore not listed themselves

    Examples
    --------
    >>> print(Finding("linear-stack", "warning", "0", "Two Linear layers in a row.",
    ...               "an activation between them", "They are one linear map.", "Add nn.ReLU()."))
    warning: linear-stack at '0'
      Two Linear layers in a row. They are one linear map.
      healthy: an activation between them
      mend:    Add nn.ReLU().
    """

    rule: str
    severity: str
    where: str
    seen: str
    healthy: str
    why: str
    mend: str
    stage: str = ""
    values: dict[str, float | int | str] = field(default_factory=dict)
    explains: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The finding as a short text, at the terminal's width."""
        lines = [f"{self.severity}: {self.rule} at '{self.where}'"]
        lines.append(wrapped(f"  {self.seen} {self.why}".rstrip()))
        if self.healthy:
            lines.append(_hanging("healthy: ", self.healthy))
        lines.append(_hanging("mend:    ", self.mend))
        if self.explains:
            lines.append(_hanging("explains: ", ", ".join(self.explains)))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None."""
        state = asdict(self)
        state["values"] = {name: _plain(value) for name, value in self.values.items()}
        state["explains"] = list(self.explains)
        return state

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Finding:
        """The finding that `to_json` wrote."""
        known = {name: value for name, value in state.items() if name in cls.__annotations__}
        return cls(**{**known, "explains": tuple(state.get("explains", ()))})


def finding(
    severity: str, where: str, seen: str, *, healthy: str, why: str, mend: str, **values: Any
) -> Finding:
    """What a rule yields; its id and stage are filled in where the rule is registered."""
    return Finding("", severity, where, seen, healthy, why, mend, values=values)


def _hanging(head: str, text: str) -> str:
    import textwrap

    from layerwise.text import width

    return textwrap.fill(
        text, width(), initial_indent=f"  {head}", subsequent_indent=" " * (2 + len(head)),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Findings(list[Finding]):
    """Findings sorted by what to mend first: errors before warnings, causes before symptoms.

    Of several findings of one rule at one place the gravest is kept. A symptom that a listed cause
    explains is named in that cause's ``explains`` and kept in ``explained``.

    Parameters
    ----------
    found : findings in any order
    skipped : what could not be looked at, a sentence each
    trials : what was tried, if that was asked for
    """

    def __init__(
        self,
        found: Iterable[Finding] = (),
        skipped: Iterable[str] = (),
        trials: Iterable[Any] = (),
    ) -> None:
        self.skipped: list[str] = list(dict.fromkeys(skipped))
        self.trials: list[Any] = list(trials)
        self.explained: list[Finding] = []
        super().__init__(self._attached(_gravest(found)))
        self.sort(key=_urgency)

    def _attached(self, found: list[Finding]) -> Iterator[Finding]:
        alarms = {one.rule: one for one in found if one.severity != "note"}
        cause_of = {
            symptom: cause
            for cause in sorted(alarms, key=lambda rule: _RANK.get(rule, (9, 0)), reverse=True)
            for symptom in EXPLAINS.get(cause, ())
        }
        explained: dict[str, list[str]] = {}
        for one in found:
            if one.rule in cause_of and not _by_itself(one):
                explained.setdefault(_root(one.rule, cause_of), []).append(one.rule)
                self.explained.append(one)
        for one in found:
            if one.rule not in cause_of or _by_itself(one):
                names = (*one.explains, *explained.get(one.rule, ()))
                yield replace(one, explains=tuple(dict.fromkeys(names)))

    @property
    def errors(self) -> list[Finding]:
        """Those that cannot work, or are surely not meant."""
        return [one for one in self if one.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Those that very likely cost quality."""
        return [one for one in self if one.severity == "warning"]

    @property
    def alarms(self) -> list[Finding]:
        """Errors and warnings, in order."""
        return [one for one in self if one.severity != "note"]

    @property
    def rules(self) -> list[str]:
        """The ids of the rules that found something, the most urgent first."""
        return list(dict.fromkeys(one.rule for one in self))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, those explained by others at the end with ``explained_by``."""
        causes = {rule: one.rule for one in self for rule in one.explains}
        return [
            *(one.to_json() for one in self),
            *({**one.to_json(), "explained_by": causes.get(one.rule)} for one in self.explained),
        ]

    def __str__(self) -> str:
        """All findings for a terminal, after a line that says how many there are."""
        return "\n\n".join([_headline(self), *map(str, self), *self._notes()])

    def __repr__(self) -> str:
        """The same as ``str``, for a prompt."""
        return str(self)

    def _notes(self) -> Iterator[str]:
        if self.trials:
            yield "\n".join(wrapped(str(one)) for one in self.trials)
        if self.skipped:
            yield "\n".join(wrapped(f"not looked at: {one}") for one in self.skipped)

    def _repr_html_(self) -> str:
        items = "".join(_item(one) for one in self)
        notes = "".join(f"<p><small>{html.escape(one)}</small></p>" for one in self._notes())
        return f"<div><p>{html.escape(_headline(self))}</p><ol>{items}</ol>{notes}</div>"


def _by_itself(one: Finding) -> bool:
    """Whether it was seen before any step, so that no other cause made it: a rate by its number."""
    return one.rule == "lr-too-high" and one.stage == "static"


def _urgency(one: Finding) -> tuple[int, int, int]:
    return (SEVERITIES.index(one.severity), *_RANK.get(one.rule, (3, len(RULES))))


def _gravest(found: Iterable[Finding]) -> list[Finding]:
    """One finding for each rule and place."""
    kept: dict[tuple[str, str, Any], Finding] = {}
    for one in found:
        key = (one.rule, one.where, one.values.get("column"))
        other = kept.get(key)
        if other is None or SEVERITIES.index(one.severity) < SEVERITIES.index(other.severity):
            kept[key] = one
    return list(kept.values())


def _root(rule: str, cause_of: dict[str, str]) -> str:
    """The first cause behind a symptom, past the symptoms between."""
    seen = {rule}
    while rule in cause_of and cause_of[rule] not in seen:
        rule = cause_of[rule]
        seen.add(rule)
    return rule


def _headline(found: Findings) -> str:
    if not found:
        return "no findings: nothing here looks wrong"
    kinds = [(name, sum(one.severity == name for one in found)) for name in SEVERITIES]
    return ", ".join(count(n, name) for name, n in kinds if n)


def _item(one: Finding) -> str:
    text = {name: html.escape(value) for name, value in one.to_json().items() if type(value) is str}
    also = f"<br><small>explains {html.escape(', '.join(one.explains))}</small>"
    return (
        f"<li><b>{text['severity']}</b> <code>{text['rule']}</code> at <code>{text['where']}</code>"
        f"<br>{text['seen']} {text['why']}<br><i>Healthy:</i> {text['healthy']}"
        f"<br><i>Mend:</i> {text['mend']}{also if one.explains else ''}</li>"
    )
