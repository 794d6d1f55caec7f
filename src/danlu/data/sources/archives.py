"""Folders, zip archives and gzip files: the files in them, one after the other."""

from __future__ import annotations

import gzip
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from danlu.data.sources.base import Member
from danlu.data.sources.facts import listed
from danlu.errors import DataError
from danlu.files import disk_errors, format_bytes

_BLOCK: Final = 1 << 20
# What an archive may grow to: texts are packed to a tenth or so, logs to a hundredth; a bomb to a thousandth.
MOST_RATIO: Final = 200
MOST_BYTES: Final = 50_000_000_000
MOST_FILES: Final = 100_000
# Below it no archive is refused for its ratio: a small one may be one sentence a thousand times.
_SMALL: Final = 1_000_000
# What systems and editors leave in folders, never data.
_CLUTTER: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
# What describes data in a repository of a data set and is none.
_ABOUT: Final = re.compile(
    r"(readme|license|licence|notice|changelog|citation)(\..{1,8})?|dataset_infos?\.json", re.IGNORECASE
)
_UTF8_NAME: Final = 0x800
_ENCRYPTED: Final = 0x1


@dataclass(frozen=True)
class Content:
    """The files that are to be read.

    Attributes:
        names: their names within the folder or archive, in the order of reading.
        skipped: names of those that are passed over.
    """

    names: tuple[str, ...]
    skipped: tuple[str, ...]


def folder_content(folder: Path) -> Content:
    """Look which files of a folder and its subfolders are to be read.

    Raises:
        DataError: there is none, or the folder cannot be read.
    """
    try:
        paths = [path for path in folder.rglob("*") if not path.is_dir()]
    except OSError as error:
        raise DataError("data.unreadable", str(folder), reason=error.strerror or str(error)) from error
    content = _chosen([path.relative_to(folder).as_posix() for path in paths])
    if not content.names:
        raise DataError("files.empty_folder", str(folder))
    return content


def folder_member(folder: Path, name: str) -> Member:
    """Return a file of a folder.

    Raises:
        DataError: it is a link to nothing, or no file.
    """
    path = folder / name
    shown = f"{folder.name}/{name}"
    if not path.is_file():
        raise DataError("data.missing_file", shown)
    return Member(path, shown, name, share=path.stat().st_size)


class Zip:
    """A zip archive, open as long as its files are read.

    Attributes:
        content: its files.
        packed: bytes of those that are to be read, as they are packed.
    """

    def __init__(self, member: Member, archive: zipfile.ZipFile) -> None:
        self._member = member
        self._archive = archive
        infos = [info for info in archive.infolist() if not info.is_dir()]
        self._infos = {_name(info): info for info in infos}
        self.content = _chosen(list(self._infos))
        if not self.content.names:
            raise DataError("files.empty_archive", member.shown)
        self.packed = sum(self._infos[name].compress_size for name in self.content.names)
        self._require_sane(len(infos))

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    def members(self) -> Iterator[Member]:
        """Unpack the files by name, one at a time, where they are removed again.

        Raises:
            DataError: a file is damaged or encrypted.
            MachineError: the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="danlu-") as folder:
            for name in self.content.names:
                info = self._infos[name]
                shown = f"{self._member.shown}/{name}"
                if info.flag_bits & _ENCRYPTED:
                    raise DataError("files.encrypted", shown)
                unpacked = Path(folder) / _safe(name)
                try:
                    with self._archive.open(info) as packed:
                        _copy(packed, unpacked, self._member, info.compress_size)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                    raise DataError("files.bad_archive", shown, reason=_reason(error)) from None
                yield Member(unpacked, shown, name, share=info.compress_size)

    def _require_sane(self, count: int) -> None:
        infos = [self._infos[name] for name in self.content.names]
        for name, info in zip(self.content.names, infos, strict=True):
            path = PurePosixPath(name.replace("\\", "/"))
            link = stat.S_ISLNK(info.external_attr >> 16)
            if link or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
                raise DataError("files.leads_out", self._member.shown, name=name)
        size, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
        if count > MOST_FILES:
            raise DataError("files.too_many_files", self._member.shown, files=count, most=MOST_FILES)
        _require_size(self._member, size, packed)


def opened_zip(member: Member) -> Zip:
    """Open a zip archive and look what is in it; nothing is unpacked yet.

    Raises:
        DataError: damaged, empty, of a size that no archive of texts has, or with names that lead out of it.
    """
    try:
        archive = zipfile.ZipFile(member.path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError("files.bad_archive", member.shown, reason=_reason(error)) from None
    except OSError as error:
        raise DataError("data.unreadable", member.shown, reason=error.strerror or str(error)) from error
    try:
        return Zip(member, archive)
    except DataError:
        archive.close()
        raise


def gzip_member(member: Member) -> Iterator[Member]:
    """Unpack a gzip file where it is removed again.

    Raises:
        DataError: it is damaged, or grows to what no texts do.
        MachineError: the disk is full.
    """
    inner = member.name[: -len(Path(member.name).suffix)] if member.name else ""
    with tempfile.TemporaryDirectory(prefix="danlu-") as folder:
        unpacked = Path(folder) / _safe(Path(member.name or member.shown).stem)
        try:
            with gzip.open(member.path) as packed:
                _copy(cast("IO[bytes]", packed), unpacked, member, member.path.stat().st_size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DataError("files.bad_archive", member.shown, reason=_reason(error)) from None
        yield Member(unpacked, member.shown, inner or Path(member.shown).stem, share=member.share)


def refuse_unknown(shown: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse files of kinds that are not read, all of them at once.

    Raises:
        DataError: there is one.
    """
    if names:
        raise DataError("files.unknown_kind", shown, files=listed(list(names)), known=", ".join(known))


def _chosen(names: list[str]) -> Content:
    """Tell data from what systems leave, and from what describes data where there is any beside it."""
    seen = [name for name in sorted(names) if not _is_clutter(name)]
    data = [name for name in seen if not _ABOUT.fullmatch(PurePosixPath(name).name)]
    read = data or seen
    return Content(tuple(read), tuple(sorted(set(names) - set(read))))


def _copy(packed: IO[bytes], target: Path, member: Member, packed_size: int) -> None:
    """Unpack, and stop at the limits: what an archive says about its size need not be true.

    Raises:
        DataError: it is more than any texts are.
        MachineError: the disk is full.
    """
    size = 0
    with disk_errors(target), target.open("wb") as file:
        while block := packed.read(_BLOCK):
            size += len(block)
            _require_size(member, size, packed_size)
            file.write(block)


def _require_size(member: Member, size: int, packed: int) -> None:
    if size > MOST_BYTES or size > MOST_RATIO * max(packed, _SMALL):
        raise DataError("files.bomb", member.shown, size=format_bytes(size), packed=format_bytes(packed))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; Chinese Windows writes GBK and does not say so."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeError:
        return info.filename
    for encoding in ("utf-8", "gbk"):  # several programs write UTF-8 without saying so
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


def _safe(name: str) -> str:
    """Return a file name that stays in its folder and ends like the name: readers of plug-ins look at the end."""
    return "member" + re.sub(r"[^\w.]", "_", PurePosixPath(name).suffix)[:20]


def _is_clutter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any((part.startswith(".") and part != "..") or part.lower() in _CLUTTER for part in parts)
