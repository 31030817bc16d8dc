"""Which rows train, which decide when to stop, which are looked at once at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerwise.errors import DataError, SettingError

# Of a bag's rows, also where it has more networks, which then hold the folds out again: in smaller
# ones the epoch that looks best is the luckiest.
FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Row indices of the three parts, each ascending, none in two; a part can be empty."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    how: str = "at random"


def split_rows(
    n_rows: int,
    *,
    valid: float,
    test: float,
    seed: int,
    classes: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> Split:
    """Part the rows at random, stratified by class, by whole groups, or by time.

    Parameters
    ----------
    n_rows : how many rows there are
    valid, test : shares of all rows, in [0, 1) and together below 1; 0 leaves the part empty
    seed : of the private generator; the global random state is not touched
    classes : int array of shape (n_rows,): keep each class's share in every part. A class with a
        single row goes to the training rows
    groups : array of shape (n_rows,): rows of one group stay together
    times : array of shape (n_rows,): the latest rows are tested, those before them validate;
        rows of one moment stay together

    Raises
    ------
    SettingError
        For shares outside their limits.
    DataError
        If a part would stay empty although its share is not 0.

    Examples
    --------
    >>> split = split_rows(10, valid=0.2, test=0.3, seed=0)
    >>> len(split.train), len(split.valid), len(split.test)
    (5, 2, 3)
    """
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < 1:
            raise SettingError(
                f"{name} has to be a share from 0 up to, not including, 1; got {share}"
            )
    if valid + test >= 1:
        raise SettingError(f"valid {valid} and test {test} leave no rows to train on")
    if groups is not None and times is not None:
        raise SettingError("split by group or by time, not both")
    rng = np.random.default_rng(seed)
    if times is not None:
        split = _by_time(np.asarray(times), valid, test)
    elif groups is not None:
        split = _by_group(np.asarray(groups), valid, test, rng)
    else:
        split = _at_random(n_rows, classes, valid, test, rng)
    for name, share in (("train", 1.0), ("valid", valid), ("test", test)):
        if share and not len(getattr(split, name)):
            raise DataError(
                f"{n_rows} row{'s' * (n_rows != 1)} ({split.how}) leave none for the {name} part; "
                f"more rows are needed, or other shares (valid {valid:g}, test {test:g})"
            )
    return split


def _at_random(
    n_rows: int, classes: np.ndarray | None, valid: float, test: float, rng: np.random.Generator
) -> Split:
    """Systematic sampling of the shuffled rows, sorted by class: every class gets its share."""
    order = rng.permutation(n_rows)
    alone = np.zeros(n_rows, bool)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
        alone = np.bincount(classes)[classes] < 2
        order = order[~alone[order]]
    tested = _every(len(order), n_rows, test, rng)
    rest = order[~tested]
    validated = _every(len(rest), n_rows, valid, rng)
    train = np.concatenate([rest[~validated], np.flatnonzero(alone)])
    how = "at random" if classes is None else "at random, each class in its share"
    return Split(np.sort(train), np.sort(rest[validated]), np.sort(order[tested]), how)


def _every(n: int, n_rows: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask over n places, evenly spread, with ``share`` of ``n_rows`` of them True."""
    count = min(round(share * n_rows), n)
    mask = np.zeros(n, bool)
    if count:
        steps = (np.arange(count) + rng.random()) * n / count
        mask[np.minimum(steps.astype(np.int64), n - 1)] = True
    return mask


def _by_group(groups: np.ndarray, valid: float, test: float, rng: np.random.Generator) -> Split:
    _, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes)
    part = np.zeros(len(sizes), np.int64)
    order, left = rng.permutation(len(sizes)), len(sizes)
    for number, share in ((2, test), (1, valid)):
        want, got = share * len(codes), 0
        # Take each group that brings the part nearer to its share; one is left to train on.
        for group in order if share else ():
            if part[group] == 0 and left > 1 and got + sizes[group] / 2 <= max(want, 1):
                part[group], got, left = number, got + sizes[group], left - 1
    rows = part[codes]
    train, validated, tested = (np.flatnonzero(rows == number) for number in (0, 1, 2))
    return Split(train, validated, tested, f"by {len(sizes):,} group{'s' * (len(sizes) != 1)}")


def _by_time(times: np.ndarray, valid: float, test: float) -> Split:
    order = np.argsort(times, kind="stable")
    n = len(order)

    def start(place: int) -> int:
        """The first row of the moment that stands at this place."""
        if place >= n:
            return n
        return int(np.searchsorted(times[order], times[order[place]], side="left"))

    tested = start(n - round(test * n)) if test else n
    validated = start(max(tested - round(valid * n), 0)) if valid else tested
    train, middle, late = order[:validated], order[validated:tested], order[tested:]
    return Split(np.sort(train), np.sort(middle), np.sort(late), "by time, the latest for the test")


def deal(
    n_rows: int,
    n_folds: int,
    *,
    seed: int,
    classes: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Deal the rows into folds of nearly equal size: at random, stratified, or by whole groups.

    Parameters
    ----------
    n_rows, n_folds : how many there are; with fewer rows or groups there are fewer folds
    seed : of the private generator; the global random state is not touched
    classes : int array of shape (n_rows,): each class is spread evenly over the folds. The row of a
        class that has but one is in no fold, so that every training has it
    groups : array of shape (n_rows,): rows of one group are in one fold

    Returns
    -------
    int64 array of shape (n_rows,): the fold of each row, from 0; -1 for none

    Examples
    --------
    >>> np.bincount(deal(10, 5, seed=0, classes=np.repeat([0, 1], 5))).tolist()
    [2, 2, 2, 2, 2]
    """
    rng = np.random.default_rng([seed, 1])  # another than that of `split_rows`
    fold = np.full(n_rows, -1)
    if groups is not None:
        _, codes = np.unique(groups, return_inverse=True)
        sizes = np.bincount(codes)
        order = rng.permutation(len(sizes))
        of_group, filled = np.zeros(len(sizes), np.int64), np.zeros(min(n_folds, len(sizes)))
        for group in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first
            of_group[group] = filled.argmin()
            filled[of_group[group]] += sizes[group]
        return of_group[codes]
    order = rng.permutation(n_rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
        order = order[np.bincount(classes)[classes[order]] > 1]
    fold[order] = np.arange(len(order)) % n_folds
    return fold
