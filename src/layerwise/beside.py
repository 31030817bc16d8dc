"""A second process for what needs scikit-learn: it imports and fits while the network trains.

scikit-learn takes seconds to import, the baselines take more, and a training uses one core. Where
scikit-learn is imported already, or no second process can be had, the work is done here instead;
the answers are the same.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Self


class Beside:
    """Asks another process to call functions; used as a context, which ends that process.

    Examples
    --------
    >>> with Beside() as beside:
    ...     answer = beside.ask(max, 3, 5)
    ...     answer()
    5
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if "sklearn" in sys.modules or (os.cpu_count() or 1) < 2:
            return
        paths = os.pathsep.join(path for path in sys.path if path)
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "layerwise.beside"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C is for the training, which ends this one itself
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """Begin a call, after those asked before; what comes back waits for its answer.

        Answers have to be fetched in the order in which they were asked for. The first can be
        waited for at most so many seconds; then there is a TimeoutError, and no more to ask but
        after an `end`.
        """
        try:
            if self._process is None or self._process.stdin is None:
                raise BrokenPipeError
            pickle.dump((function, arguments), self._process.stdin)
            self._process.stdin.flush()
        except (OSError, pickle.PicklingError):
            self.end()

        def answer(timeout: float | None = None) -> Any:
            return self._answer(function, arguments, timeout)

        return answer

    def _answer(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float | None
    ) -> Any:
        try:
            if self._process is None or self._process.stdout is None:
                raise BrokenPipeError
            if (
                timeout is not None
                and not select.select([self._process.stdout], [], [], timeout)[0]
            ):
                raise TimeoutError
            done, answer = pickle.load(self._process.stdout)  # from our own process, not a file
        except TimeoutError:
            raise
        except (OSError, EOFError, pickle.UnpicklingError):
            self.end()
            return function(*arguments)
        except KeyboardInterrupt:
            self.end()
            raise
        if not done:
            raise answer
        return answer

    def end(self) -> None:
        """End the process, whatever it is doing; later calls are made here."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.wait()


def serve() -> None:
    """Answer calls on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    imported = threading.Thread(target=__import__, args=("sklearn.metrics",), daemon=True)
    imported.start()
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        imported.join()
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, error)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
