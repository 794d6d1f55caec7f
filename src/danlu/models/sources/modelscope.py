"""Base models from ModelScope through its own package, which is optional (``pip install danlu[modelscope]``)."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from danlu.errors import DownloadError
from danlu.files import require_free
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
from danlu.models.sources.huggingface import link_files

_ENDPOINT: Final = "https://modelscope.cn"


class ModelScope:
    """The ModelScope hub."""

    name: SourceName = "modelscope"

    def offers(self, entry: CatalogueEntry) -> bool:
        """Whether the catalogue has an id for ModelScope."""
        return entry.sources.modelscope is not None

    def ask(self, entry: CatalogueEntry, timeout: float) -> None:
        """Ask for the model's page (see ``Source.ask``)."""
        if importlib.util.find_spec("modelscope") is None:
            raise SourceUnavailable("pip install modelscope")
        url = f"{_ENDPOINT}/api/v1/models/{entry.sources.modelscope}"
        try:
            with urllib.request.urlopen(url, timeout=timeout):  # noqa: S310 - a fixed https address
                return
        except (urllib.error.URLError, OSError) as error:
            raise SourceUnavailable(first_line(error)) from error

    def fetch(self, entry: CatalogueEntry, folder: Path, cache: Path, report: Report) -> Origin:
        """Download into Danlu's cache, which resumes, and link the files into ``folder`` (see ``Source.fetch``)."""
        model = entry.sources.modelscope
        assert model is not None
        if importlib.util.find_spec("modelscope") is None:
            raise DownloadError("models.modelscope_missing")
        from modelscope import snapshot_download

        require_free(folder, 2 * entry.parameters)
        report(Progress("download", self.name, 0, 2 * entry.parameters))
        try:
            snapshot = Path(
                snapshot_download(
                    model,
                    cache_dir=str(cache / "modelscope"),
                    allow_patterns=list(ALLOWED_PATTERNS),
                    ignore_patterns=list(IGNORED_PATTERNS),
                )
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DownloadError("models.source_failed", model, source="ModelScope", reason=first_line(error)) from error
        names = [path.name for path in snapshot.iterdir() if path.is_file() and is_wanted(path.name)]
        link_files(snapshot, folder, names)
        return Origin(f"modelscope:{model}", None)
