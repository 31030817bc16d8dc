"""Results to stdout, whole; everything else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

from layerwise.errors import OutputError


def notice(text: str) -> None:
    """Say something on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def print_result(result: Any, as_json: bool) -> None:
    """Print a result, its text or its plain values as JSON."""
    text = json.dumps(finite(result), ensure_ascii=False, default=str) if as_json else result
    write(f"{text}\n")


def write(text: str) -> None:
    """Write a result to stdout, all of it; that a reader such as ``head`` has gone is no error."""
    if sys.stdout is None:
        raise OutputError("standard output is closed, so the result cannot be shown")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        raise OutputError(f"standard output cannot be written: {error.strerror}") from None


def _drop_output() -> None:
    """Leave nothing in the buffer of stdout that Python would fail to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
