"""Run the native tests on a core that watches its own memory, arithmetic and threads.

    python tests/sanitize.py          # AddressSanitizer with UBSan, then ThreadSanitizer
    python tests/sanitize.py threads  # only the one

Each build is of one instruction set. The interpreter itself is not built for it, so the sanitizer's
library is loaded before anything else, and leaks, of which the interpreter has its own, are not
looked for.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from faults import HERE, TESTS, Build

ALONE = "threads or signal or forked or bytes or hold"
KINDS = {
    "memory": (
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_odr_violation=0",
         "UBSAN_OPTIONS": "print_stacktrace=1"},
        (),
    ),
    "threads": (
        ("-fsanitize=thread",),
        "libtsan.so",
        {"TSAN_OPTIONS": "exitcode=66:report_signal_unsafe=0:ignore_noninstrumented_modules=1"},
        ("-k", ALONE),
    ),
}  # fmt: skip


def _path(library: str) -> str:
    command = ["g++", f"-print-file-name={library}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return str(Path(found.stdout.strip()).resolve())


def run(kind: str, folder: Path) -> int:
    """Build it, test it, and give back the tests' exit code."""
    options, library, settings, chosen = KINDS[kind]
    build = Build(folder, "-g", "-fno-omit-frame-pointer", *options)
    core = build.linked(build.made["core"], build.made["binding"])
    # with the C++ library beside it, or the first exception finds nobody to throw it
    preloaded = ":".join(_path(name) for name in (library, "libstdc++.so"))
    environment = {**os.environ, **settings, "LD_PRELOAD": preloaded,
                   "LAYERWISE_CORE": str(core), "LAYERWISE_SLOWER": "30",
                   "PYTHONPATH": str(HERE)}  # fmt: skip
    # at addresses that do not change: ThreadSanitizer's map of memory has no room for others
    fixed = ["setarch", platform.machine(), "-R"] if kind == "threads" else []
    command = [*fixed, sys.executable, "-m", "pytest", "-p", "other_core", "-p", "no:xdist",
               "-p", "no:cacheprovider", "-q", "--capture=sys", *chosen,
               *(str(HERE / name) for name in TESTS)]  # fmt: skip
    print(f"{kind}: {' '.join(options)}", flush=True)
    code = subprocess.run(command, env=environment, check=False).returncode
    print(f"{kind}: the tests ended with {code}", flush=True)
    return code


def main(kinds: list[str]) -> int:
    codes = []
    for kind in kinds or list(KINDS):
        with tempfile.TemporaryDirectory() as name:
            codes.append(run(kind, Path(name)))
    return int(any(codes))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
