"""Plain texts beside answers: the texts of a ``semi`` run, cut, packed and marked. ``material`` makes the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from danlu.data.datasets import DatasetLibrary
from danlu.data.encoded import Encoder
from danlu.data.manifest import DatasetManifest
from danlu.data.reading import Reading
from danlu.data.sequences import Chained
from danlu.data.texts import fill
from danlu.errors import DataError
from danlu.jobs.material import Material
from danlu.models.document_format import DocumentFormat
from danlu.planning.plan import Plan
from danlu.planning.semi_rules import text_length
from danlu.recipe import Recipe


def register_unlabelled(library: DatasetLibrary, names: Sequence[str], reading: Reading) -> list[DatasetManifest]:
    """Return the newest versions of what has no answers.

    Args:
        library: the data sets.
        names: names of data sets, or files.
        reading: how files are read.

    Raises:
        DataError: it has, and belongs to ``data.train``; or it holds questions, which are not learned.
    """
    manifests = [library.register(name, reading) for name in names]
    for manifest in manifests:
        if manifest.kind == "questions":
            raise DataError("data.questions_found", manifest.name)
        if manifest.kind != "texts":
            raise DataError("data.answers_unlabelled", manifest.name)
    return manifests


def with_texts(material: Material, plan: Plan, recipe: Recipe, library: DatasetLibrary, encoder: Encoder) -> Material:
    """Return the material with the plan's unlabelled texts behind its answers; unchanged where there are none.

    Raises:
        NotFoundError: a version of a data set is gone.
    """
    if not plan.unlabelled:
        return material
    most, length = recipe.data.max_samples, text_length(plan)
    document_format = DocumentFormat.of(material.chat_format.tokenizer)
    opened = [library.open_version(ref.name, ref.version) for ref in plan.unlabelled]
    tables = [encoder.documents(item.sha256, item.documents[:most], document_format, length) for item in opened]
    texts = fill(Chained(tables), length, text=True)
    return replace(material, examples=Chained([material.examples, texts]))
