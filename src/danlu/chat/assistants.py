"""Making assistants: from the quickstart and the command line, with or without a running server."""

from __future__ import annotations

from collections.abc import Sequence

from danlu.models.versions import ModelVersion
from danlu.store.records import Assistant
from danlu.store.store import Store


def ensure_assistant(
    store: Store,
    version: ModelVersion,
    name: str,
    greeting: str,
    suggestions: Sequence[str],
    *,
    engine: str = "auto",
    system: str = "",
) -> Assistant:
    """Create the assistant ``name`` on a model version, or put the version into service for the one that exists.

    Args:
        store: an open store; this blocks on it.
        version: a registered model version; its generation settings become the assistant's.
        name: what people see.
        greeting: opening line of an empty conversation.
        suggestions: questions to begin with.
        engine: ``auto``, ``llamacpp``, ``transformers`` or ``openai:URL``.
        system: the assistant's own system prompt; empty for the one saved with the version.

    Returns:
        the assistant; an existing one keeps its id and its conversations.
    """
    return store.assistants.put(
        name,
        version_id=version.id,
        engine=engine,
        system=system,
        greeting=greeting,
        suggestions=suggestions,
        generation=version.generation,
    )
