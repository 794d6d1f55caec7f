"""Base models from Hugging Face, or a mirror of it, through ``huggingface_hub``.

``HF_HOME``, ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they mean everywhere. Files are downloaded into the hub's own
cache, which resumes, and linked from there, so that nothing lies twice on one disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import DownloadError
from danlu.files import require_free, sha256_of
from danlu.models.catalogue import CatalogueEntry
from danlu.models.load import first_line
from danlu.models.sources.base import (
    ALLOWED_PATTERNS,
    IGNORED_PATTERNS,
    Origin,
    Progress,
    Report,
    SourceName,
    SourceUnavailable,
    is_wanted,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo


class HuggingFace:
    """The hub that ``HF_ENDPOINT`` names."""

    name: SourceName = "hf"

    def offers(self, entry: CatalogueEntry) -> bool:
        """Whether the catalogue has an id for the hub."""
        return entry.sources.hf is not None

    def ask(self, entry: CatalogueEntry, timeout: float) -> None:
        """Ask for the model's page (see ``Source.ask``)."""
        self._info(entry, timeout)

    def fetch(self, entry: CatalogueEntry, folder: Path, cache: Path, report: Report) -> Origin:
        """Download into the hub's cache and link the files into ``folder`` (see ``Source.fetch``)."""
        from huggingface_hub import constants, snapshot_download

        repo = entry.sources.hf
        assert repo is not None
        try:
            info = self._info(entry, timeout=20.0)
            sizes = {item.rfilename: item.size or 0 for item in info.siblings or () if is_wanted(item.rfilename)}
            total = sum(sizes.values())
            have = _cached_bytes(Path(constants.HF_HUB_CACHE), repo)
            require_free(Path(constants.HF_HUB_CACHE), max(total - have, 0))
            if not _same_disk(Path(constants.HF_HUB_CACHE), folder):
                require_free(folder, total)
            snapshot = snapshot_download(
                repo,
                revision=info.sha,
                allow_patterns=list(ALLOWED_PATTERNS),
                ignore_patterns=list(IGNORED_PATTERNS),
                tqdm_class=_progress_class(report, self.name, total),
            )
        except SourceUnavailable as error:
            raise DownloadError("models.source_failed", repo, source="Hugging Face", reason=str(error)) from error
        except _hub_errors() as error:
            raise DownloadError(
                "models.source_failed", repo, source="Hugging Face", reason=first_line(error)
            ) from error
        report(Progress("check", self.name))
        hashes = _check_hashes(Path(snapshot), repo, info)
        link_files(Path(snapshot), folder, list(sizes))
        return Origin(f"hf:{repo}", info.sha, hashes)

    def _info(self, entry: CatalogueEntry, timeout: float) -> ModelInfo:
        """Return the model's page.

        Raises:
            SourceUnavailable: the hub does not answer, does not have the model, or wants a licence accepted first.
        """
        from huggingface_hub import HfApi

        repo = entry.sources.hf
        assert repo is not None
        try:
            return HfApi().model_info(repo, timeout=timeout, files_metadata=True)
        except _hub_errors() as error:
            raise SourceUnavailable(first_line(error)) from error


def _check_hashes(snapshot: Path, repo: str, info: ModelInfo) -> dict[str, str]:
    """Compare the large files with the hashes that the hub names, and throw away what differs.

    Returns:
        The hashes by file name.

    Raises:
        DownloadError: a file differs.
    """
    hashes: dict[str, str] = {}
    for item in info.siblings or ():
        if item.lfs is None or not is_wanted(item.rfilename):
            continue
        path = snapshot / item.rfilename
        hashes[item.rfilename] = sha256_of(path)
        if hashes[item.rfilename] != item.lfs.sha256:
            path.resolve().unlink()
            raise DownloadError("models.hash_differs", item.rfilename, package=repo)
    return hashes


def _hub_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises: its own errors and those of its HTTP library (httpx or its successor)."""
    from huggingface_hub import errors

    http_error = next(cls for cls in errors.HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")
    return (http_error, errors.OfflineModeIsEnabled, OSError, ValueError)


def link_files(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Link files into a folder, or copy them where links are not possible (another disk, Windows without rights)."""
    for name in names:
        real = (source / name).resolve()
        try:
            os.link(real, folder / name)
        except OSError:
            shutil.copyfile(real, folder / name)


def _same_disk(cache: Path, folder: Path) -> bool:
    while not cache.exists() and cache != cache.parent:
        cache = cache.parent
    return cache.stat().st_dev == folder.stat().st_dev


def _cached_bytes(cache: Path, repo: str) -> int:
    """Bytes of a repository that lie in the hub's cache already, whole or in part."""
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir() if path.is_file()) if blobs.is_dir() else 0


def _progress_class(report: Report, source: SourceName, total: int) -> type[Any]:
    """Return a progress bar for the hub that draws nothing and reports the bytes of all files together."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        done = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts_bytes = options.get("unit") == "B"
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool:
            if self._counts_bytes and n:
                Bar.done += int(n)
                report(Progress("download", source, min(Bar.done, total), total))
            return bool(super().update(n))

    return Bar
