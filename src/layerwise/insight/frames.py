"""Results as a table of pandas, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from layerwise.errors import SettingError


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A pandas DataFrame of these rows.

    Raises
    ------
    SettingError
        If pandas is not installed.

    Examples
    --------
    >>> frame_of([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])["loss"].tolist()
    [0.5, 0.25]
    """
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise SettingError(
            "a frame needs pandas, which is not installed: pip install pandas; the same values "
            "are in to_json()"
        ) from None
    return pandas.DataFrame([dict(row) for row in rows])
