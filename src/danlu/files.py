"""Files that are never half-written: atomic replacement, hashes, and a look at the disk before a large write."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from danlu.errors import MachineError

_BLOCK = 1 << 20
T = TypeVar("T", bound=BaseModel)


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_as(kind: type[T], path: Path) -> T:
    """Read a JSON file that Danlu wrote.

    Raises:
        MachineError: it is damaged, or was written by a newer version.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise MachineError("ground.file_damaged", str(path), reason=why_invalid(error)) from error


def why_invalid(error: ValidationError) -> str:
    """Return the first reason of a failed validation: the field and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old file or the new one, never a part.

    Raises:
        MachineError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with disk_errors(path):
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Replace ``path`` by ``content`` in UTF-8, atomically (see ``write_bytes``)."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Replace ``path`` by ``value`` as readable JSON, atomically (see ``write_bytes``)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that becomes ``target`` when the code inside ends well.

    An existing ``target`` is replaced only then; after an error or a crash nothing of the new one is left under its
    name (a crash leaves a ``.NAME.….part`` folder, which the next call removes).

    Raises:
        MachineError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The whole name, not a glob: `.qwen2.*.part` would also match the unfinished folder of `qwen2.5`.
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    for stale in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
        shutil.rmtree(stale, ignore_errors=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        with disk_errors(target):
            partial.mkdir()
            yield partial
            replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Move the folder ``source`` to ``target``; an old ``target`` is put aside first and removed last."""
    if not target.exists():
        source.replace(target)
        return
    old = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    target.replace(old)
    source.replace(target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" inside into a ``MachineError`` that names the path.

    Raises:
        MachineError: instead of those errors of the system; others pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            free = free_bytes(path)
            raise MachineError("ground.disk_full", str(path), free=format_bytes(free)) from error
        if error.errno == errno.EFBIG:
            raise MachineError("ground.file_too_large", str(path)) from error
        raise


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk of ``path`` (of its nearest parent that exists)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def require_free(path: Path, needed: int) -> None:
    """Check that ``needed`` bytes are free where ``path`` will be.

    Raises:
        MachineError: they are not.
    """
    free = free_bytes(path)
    if free < needed:
        raise MachineError("ground.disk_low", str(path), needed=format_bytes(needed), free=format_bytes(free))


def format_bytes(count: float) -> str:
    """Return a size for people in decimal units: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit in {"B", "kB"} else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
