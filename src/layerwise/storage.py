"""How layerwise writes: whole files or none, with a checksum inside, one writer to a folder.

A packed file is an ordinary safetensors file: arrays, and one metadata entry ``layerwise`` with
JSON. safetensors itself notices few flipped bits, so the JSON carries a SHA-256 of the whole file
(taken with the checksum's own place filled with zeros).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from layerwise.errors import ModelFileError, OutputError

_CHECKSUM = re.compile(rb'checksum\\":\\"([0-9a-f]{64})\\"')
_ZEROS = "0" * 64


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write a file so that at any moment either the old or the new one is there, complete.

    A temporary file in the same folder, flushed to the disk, renamed over the old one, and the
    folder flushed too.

    Raises
    ------
    OutputError
        With the reason in words; nothing half-written is left behind.
    """
    path = Path(path)
    data = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe, such as /dev/stdout
            return
        path = path.resolve()  # what a link leads to is written, and the link stays
        temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}"))
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666  # less the umask
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        _flush_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_reason(error)}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no space is left on the disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there"
    return error.strerror or str(error)


def check_file_output(path: str | Path) -> None:
    """Refuse, before work begins, a path that no file can be written to."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; make it first")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path} cannot be written: no permission to write there")
    if not path.exists() or path.is_file():
        _check_writable(path.resolve().parent)


def make_folder(path: str | Path) -> Path:
    """Make a folder, with its parents, and see that files can be written there."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {_reason(error)}") from None
    _check_writable(path)
    return path


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"nothing can be written to {folder}: {_reason(error)}") from None


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Keep a second run out of a folder, as long as this process lives.

    Raises
    ------
    OutputError
        If another process is at work there.
    """
    import fcntl

    path = Path(folder) / ".lock"
    try:
        file = path.open("w")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_reason(error)}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise OSError  # it was another's, who has just taken it away
        except OSError:
            raise OutputError(
                f"another run is at work in {folder}; wait for it, or use --out"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- arrays and JSON in one file


def pack(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """Arrays and plain values as the bytes of one file; the same input gives the same bytes."""
    text = json.dumps({**header, "checksum": _ZEROS}, separators=(",", ":"), ensure_ascii=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # ascontiguousarray makes a scalar one-dimensional
    contiguous = {name: a.reshape(np.shape(arrays[name])) for name, a in contiguous.items()}
    data = bytes(safetensors.numpy.save(contiguous, metadata={"layerwise": text}))
    place = _checksum_place(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[: place.start] + digest + data[place.stop :]


def unpack(
    path: str | Path, what: str = "model file"
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and plain values back from a file; runs no code from it.

    Raises
    ------
    ModelFileError
        If the file is missing, foreign, cut short, or differs by as much as one bit.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder, not a {what}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None
    if not data:
        raise ModelFileError(f"{path} is empty, not a {what}")
    try:
        place = _checksum_place(data)
    except ValueError:
        raise ModelFileError(
            f"{path} is not a {what} of layerwise, or it is damaged or cut short"
        ) from None
    said = data[place.start : place.stop].decode()
    zeroed = data[: place.start] + _ZEROS.encode() + data[place.stop :]
    if hashlib.sha256(zeroed).hexdigest() != said:
        raise ModelFileError(
            f"{path} is damaged: its checksum does not fit its {len(data):,} bytes. "
            "Copy it again from where it came, or train again."
        )
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["layerwise"])
        if not isinstance(header, dict):
            raise ValueError("its metadata are no dict")
        return safetensors.numpy.load(data), header
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a {what}: {error}") from None


def _checksum_place(data: bytes) -> slice:
    """Where the checksum's 64 digits stand: in the header, and nowhere twice."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        raise ValueError("no header")
    found = list(_CHECKSUM.finditer(data, 8, 8 + length))
    if len(found) != 1:
        raise ValueError("no checksum")
    return slice(*found[0].span(1))
