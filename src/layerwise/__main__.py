"""``layerwise`` and ``python -m layerwise``: run a command, turn errors into exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

from layerwise.errors import LayerwiseError


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad data, 130 interrupted.
    """
    from layerwise.cli import app

    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = app(standalone_mode=False) or 0
    except LayerwiseError as error:
        print(f"layerwise: {error}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except KeyboardInterrupt:
        print("layerwise: interrupted", file=sys.stderr)  # noqa: T201
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MemoryError:
        print("layerwise: out of memory", file=sys.stderr)  # noqa: T201
        code = 1
    except Exception as error:
        code = _usage(error)
    sys.exit(code)


def _usage(error: Exception) -> int:
    """Typer's own complaints about flags, in one line; anything else is a defect to be seen."""
    show = getattr(error, "format_message", None)
    if show is None:
        raise error
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "layerwise"
    print(f"layerwise: {show()} (see: {command} --help)", file=sys.stderr)  # noqa: T201
    return int(getattr(error, "exit_code", 2))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
