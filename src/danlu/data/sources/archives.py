"""Folders, zip archives and gzip files: the files in them, one after the other."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from danlu.data.sources.base import Member
from danlu.errors import DataError
from danlu.files import format_bytes

# What a small archive may grow to: texts are packed to a tenth or so; a bomb to a thousandth.
_MOST_RATIO: Final = 200
_MOST_BYTES: Final = 50_000_000_000
# What systems and editors leave in folders, never data.
_CLUTTER: Final = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_UTF8_NAME: Final = 0x800
_ENCRYPTED: Final = 0x1


def folder_members(folder: Path) -> Iterator[Member]:
    """Go through the files of a folder and its subfolders by name; hidden ones are passed over.

    Raises:
        DataError: there is none.
    """
    found = 0
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not _is_clutter(inner.parts):
            found += 1
            yield Member(path, f"{folder.name}/{inner.as_posix()}", inner.as_posix())
    if not found:
        raise DataError("files.empty_folder", str(folder))


def zip_members(member: Member) -> Iterator[Member]:
    """Unpack the files of an archive by name, one at a time, where they are removed again.

    Raises:
        DataError: damaged, encrypted, empty, or of a size that no archive of texts has.
    """
    try:
        with zipfile.ZipFile(member.path) as archive, tempfile.TemporaryDirectory(prefix="danlu-") as folder:
            inside = [info for info in archive.infolist() if not info.is_dir()]
            wanted = [(name, info) for info in inside if not _is_clutter(PurePosixPath(name := _name(info)).parts)]
            if not wanted:
                raise DataError("files.empty_archive", member.shown)
            _require_sane(member, [info for _, info in wanted])
            for name, info in sorted(wanted, key=lambda pair: pair[0]):
                if info.flag_bits & _ENCRYPTED:
                    raise DataError("files.encrypted", f"{member.shown}/{name}")
                # Never under its own name: that may lead out of the folder.
                unpacked = Path(folder) / "member"
                with archive.open(info) as packed:
                    _copy(packed, unpacked)
                yield Member(unpacked, f"{member.shown}/{name}", name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError("files.bad_archive", member.shown, reason=str(error)) from None


def gzip_member(member: Member) -> Iterator[Member]:
    """Unpack a gzip file where it is removed again.

    Raises:
        DataError: it is damaged.
    """
    inner = Path(member.shown).stem
    with tempfile.TemporaryDirectory(prefix="danlu-") as folder:
        unpacked = Path(folder) / "member"
        try:
            with gzip.open(member.path) as packed:
                _copy(cast("IO[bytes]", packed), unpacked)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DataError("files.bad_archive", member.shown, reason=str(error)) from None
        yield Member(unpacked, member.shown, (member.name and str(Path(member.name).with_suffix(""))) or inner)


def _copy(packed: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)


def _require_sane(member: Member, infos: list[zipfile.ZipInfo]) -> None:
    size, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if size > _MOST_BYTES or size > _MOST_RATIO * max(packed, 1_000_000):
        raise DataError("files.bomb", member.shown, size=format_bytes(size), packed=format_bytes(packed))


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; Chinese Windows writes GBK and does not say so."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
        return raw.decode("ascii") if raw.isascii() else raw.decode("gbk")
    except UnicodeError:
        return info.filename


def _is_clutter(parts: tuple[str, ...]) -> bool:
    return any((part.startswith(".") and part != "..") or part in _CLUTTER for part in parts)
