"""``layerwise`` and ``python -m layerwise``: a command, its errors as words and exit codes."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from types import FrameType

from layerwise.errors import LayerwiseError


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad data, 4 the doctor found
    an error, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.formatwarning = lambda message, *_, **__: f"layerwise: {message}\n"
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        from layerwise.cli import app

        code = app(standalone_mode=False) or 0
    except LayerwiseError as error:
        code = _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except MemoryError:
        code = _say("out of memory", 1)
    except Exception as error:
        code = _usage(error)
    if code == 130:  # typer turns Ctrl-C into this code too
        _say("interrupted", 130)
    sys.exit(code)


def _say(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"layerwise: {text}", file=sys.stderr)  # noqa: T201
    return code


def _usage(error: Exception) -> int:
    """Typer's own complaints about flags, in one line; anything else is a defect and shows."""
    show = getattr(error, "format_message", None)
    if show is None:
        raise error
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "layerwise"
    if show():  # without a command the help has been shown, and that says it all
        _say(f"{show()} (see: {command} --help)", 2)
    return int(getattr(error, "exit_code", 2))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
