"""``danlu export``: a run's weights in a folder of the user's, in a format that other programs load, checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from danlu.errors import ConflictError, ExportError
from danlu.export.adapter import write_adapter
from danlu.export.adapter_gguf import write_adapter_gguf
from danlu.export.agreement import check_agreement
from danlu.export.gguf_export import write_gguf
from danlu.export.gguf_storage import Quant, quant_of
from danlu.export.gguf_vocabulary import adds_bos
from danlu.export.merge import write_merged
from danlu.export.merged_check import check_merged
from danlu.export.model_card import CARD_FILE, CardFacts, model_card
from danlu.export.ollama_template import ollama_template
from danlu.export.publish import ReferenceLoader
from danlu.files import new_folder, write_text
from danlu.models.chat_format import ChatFormat
from danlu.models.load import TEMPLATE_FILE
from danlu.models.versions import Agreement, GenerationDefaults

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Format = Literal["merged", "gguf", "adapter", "adapter-gguf", "ollama"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_ADAPTER_GGUF: Final = "adapter-gguf"
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportSource:
    """What is exported.

    Attributes:
        name: becomes part of file names.
        base: folder of the base model.
        base_name: its name, for notes.
        adapter: folder of the run's adapter, or None for the base alone.
        tokenizer: folder with the tokenizer and chat template as trained with.
        chat_format: the same as an object, with system prompt and thinking policy.
        generation: how it answers by default.
        max_context: tokens of prompt and answer together.
        facts: what the run has to say of itself, for the model card.
    """

    name: str
    base: Path
    base_name: str
    adapter: Path | None
    tokenizer: Path
    chat_format: ChatFormat
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    max_context: int = 2048
    facts: CardFacts | None = None


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: the folder.
        files: names in it.
        bytes: their size together.
        agreement: how far it agrees with its source; None for the adapter, which is the source.
    """

    path: Path
    files: tuple[str, ...]
    bytes: int
    agreement: Agreement | None


def export_to(
    source: ExportSource,
    directory: Path,
    format: Format | str,  # noqa: A002 - the name of the option
    quant: str | None = None,
    model: PreTrainedModel | None = None,
    report: Report | None = None,
) -> ExportResult:
    """Write an export into a folder that does not exist yet (or is empty), whole and checked or not at all.

    Args:
        source: what to export.
        directory: the folder.
        format: ``merged``, ``gguf``, ``adapter``, ``adapter-gguf`` or ``ollama``.
        quant: storage type for ``gguf`` and ``ollama`` (``q8_0`` when None) and ``adapter-gguf`` (``f16``).
        model: base with adapter in memory, to compare with; loaded anew when None or not in float32.
        report: told how many bytes of how many are written.

    Raises:
        ConflictError: the folder has something in it.
        ExportError: the format cannot express the model, or the export does not agree with its source.
        MachineError: not enough room on the disk.
    """
    storage = quant_of(quant or ("f16" if format == _ADAPTER_GGUF else "q8_0"))
    if format not in FORMATS:
        raise ExportError("export.format_unknown", format=format, known=", ".join(FORMATS))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConflictError("export.target_exists", str(directory))
    reference = ReferenceLoader(source.base, source.adapter, model)
    agreement: Agreement | None = None
    with new_folder(directory.absolute()) as folder:
        if format == "adapter":
            if source.adapter is None:
                raise ExportError("export.adapter_missing", source.name)
            write_adapter(source.adapter, source.tokenizer, folder)
        elif format == "merged":
            write_merged(source.base, source.adapter, source.tokenizer, folder, "base", report)
            agreement = check_merged(folder, source.chat_format, reference())
        elif format == _ADAPTER_GGUF:
            agreement = _write_adapter_gguf(source, folder, storage, reference, report)
        else:
            agreement = _write_gguf(source, folder, storage, reference, report, ollama=format == "ollama")
        names = [path.name for path in folder.iterdir()]
        facts = source.facts or CardFacts(source.name, source.base_name)
        card = model_card(facts, format, names, agreement, system=source.chat_format.system, quant=storage)
        write_text(folder / CARD_FILE, card)
        files = tuple(sorted(path.name for path in folder.iterdir()))
        size = sum((folder / name).stat().st_size for name in files)
    return ExportResult(directory, files, size, agreement)


def _write_gguf(
    source: ExportSource, folder: Path, quant: Quant, reference: ReferenceLoader, report: Report | None, *, ollama: bool
) -> Agreement:
    # Before the weights: a template that Ollama cannot express is known at once.
    modelfile = _modelfile(source, f"{source.name}-{quant}.gguf") if ollama else None
    path = folder / f"{source.name}-{quant}.gguf"
    write_gguf(source.base, source.adapter, source.tokenizer, path, quant, source.name, report)
    agreement = check_agreement(path, source.chat_format, reference, quant)
    if modelfile is not None:
        write_text(folder / "Modelfile", modelfile)
    return agreement


def _write_adapter_gguf(
    source: ExportSource, folder: Path, quant: Quant, reference: ReferenceLoader, report: Report | None
) -> Agreement:
    """Write the adapter alone; it is compared as it will be used, over a GGUF of the base, which is not kept."""
    if source.adapter is None:
        raise ExportError("export.adapter_missing", source.name)
    path = folder / f"{source.name}-adapter-{quant}.gguf"
    write_adapter_gguf(source.base, source.adapter, path, quant)
    whole = folder / "base.gguf"
    write_gguf(source.base, None, source.tokenizer, whole, quant, source.base_name, report)
    agreement = check_agreement(whole, source.chat_format, reference, quant, adapter=path)
    whole.unlink()
    template = source.tokenizer / TEMPLATE_FILE
    if template.is_file():
        shutil.copyfile(template, folder / TEMPLATE_FILE)
    return agreement


def _modelfile(source: ExportSource, weights: str) -> str:
    """Return a Modelfile under which Ollama gives the prompts, and stops at the ends, that the version was made for."""
    template = ollama_template(source.chat_format, add_bos=adds_bos(source.tokenizer))
    generation = source.generation
    parameters = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "repeat_penalty": generation.repetition_penalty,
        "num_predict": generation.max_tokens,
        "num_ctx": source.max_context,
    }
    if '"""' in template.template + template.system:
        raise ExportError("export.ollama_template", reason='"""')
    lines = [f"FROM ./{weights}", f'TEMPLATE """{template.template}"""']
    lines += [f'SYSTEM """{template.system}"""'] if template.system else []
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in template.stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"
