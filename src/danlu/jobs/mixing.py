"""Plain texts beside answers: the texts of a ``semi`` run, cut, packed and marked. ``material`` makes the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from danlu.data.datasets import DatasetLibrary, DatasetManifest
from danlu.data.examples import Example
from danlu.data.texts import cut, fill
from danlu.errors import DataError
from danlu.jobs.material import Material
from danlu.models.document_format import DocumentFormat
from danlu.planning.plan import Plan
from danlu.planning.semi_rules import text_length
from danlu.recipe import Recipe


def register_unlabelled(library: DatasetLibrary, names: Sequence[str]) -> list[DatasetManifest]:
    """Return the newest versions of what has no answers.

    Raises:
        DataError: it has, and belongs to ``data.train``; or it holds questions, which are not learned.
    """
    manifests = [library.register(name) for name in names]
    for manifest in manifests:
        if manifest.kind == "questions":
            raise DataError("data.questions_found", manifest.name)
        if manifest.kind != "texts":
            raise DataError("data.answers_unlabelled", manifest.name)
    return manifests


def with_texts(material: Material, plan: Plan, recipe: Recipe, library: DatasetLibrary) -> Material:
    """Return the material with the plan's unlabelled texts behind its answers; unchanged where there are none.

    Raises:
        NotFoundError: a version of a data set is gone.
    """
    if not plan.unlabelled:
        return material
    most, length = recipe.data.max_samples, text_length(plan)
    opened = [library.open_version(ref.name, ref.version).documents[:most] for ref in plan.unlabelled]
    documents = [document for documents in opened for document in documents]
    pieces = cut(documents, DocumentFormat.of(material.chat_format.tokenizer), length)
    texts: list[Example] = [replace(example, text=True) for example in fill(pieces, length)]
    return replace(material, examples=[*material.examples, *texts])
