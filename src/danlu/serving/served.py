"""What is served under a name: an assistant's or a version's name, its engine, its prompts, how it answers by default.

``ServedModel.from_version`` reads a version folder and picks the export that the engine can load.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from danlu.errors import ModelError, NotFoundError, UsageError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.models.versions import Export, GenerationDefaults, ModelVersion, load_version
from danlu.serving.accounting import Books
from danlu.serving.admission import Admission
from danlu.serving.engine import Engine, EngineKind, EngineSpec, Form, GenerationRequest, Origin, Sampling
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.openai_engine import OpenAIEngine
from danlu.serving.prompting import PromptFormat
from danlu.serving.sharing import Hosts, can_share
from danlu.serving.supervisor import ChildEngine

_OPENAI = "openai:"
_OPENAI_LORA = "openai+lora:"
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class SamplingOverrides:
    """What a caller asks for; None leaves the served model's default. See ``Sampling`` for the fields."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class ServedModel:
    """One name that callers can ask for.

    Attributes:
        name: what callers write as ``model`` or ``assistant``.
        version_id: the model version behind it.
        version_name: its name for people.
        base: the base model's name.
        spec: its engine; served models with equal specs share one engine.
        prompts: renders its conversations; None when the engine does.
        defaults: how it answers unless a caller says otherwise.
        system: the assistant's own system prompt, in place of the one saved with the version; None for that one.
        encoder: text → token ids without the chat template.
    """

    name: str
    version_id: str
    version_name: str
    base: str
    spec: EngineSpec
    prompts: PromptFormat | None
    defaults: GenerationDefaults
    system: str | None = None
    encoder: Callable[[str], Sequence[int]] | None = None

    @classmethod
    def from_version(
        cls,
        version_dir: Path,
        *,
        engine: str = "llamacpp",
        name: str | None = None,
        system: str | None = None,
        slots: int = 4,
        threads: int = 0,
        log: Path | None = None,
    ) -> ServedModel:
        """Read a version and choose what its engine loads.

        Args:
            version_dir: the version's folder.
            engine: ``llamacpp``, ``transformers``, ``openai:URL``, or ``openai+lora:URL`` for a server that serves the
                base and is to load the version's adapter.
            name: what callers write; the version's name when None.
            system: an assistant's own system prompt.
            slots: answers at the same time (``transformers`` always makes one at a time).
            threads: processor threads; 0 for one a physical core.
            log: file for the engine's output.

        Raises:
            NotFoundError: no such version, or it has no export for this engine.
            ModelError: its manifest or tokenizer is damaged.
            UsageError: no such engine.
        """
        version = load_version(version_dir)
        kind, url = parse_engine(engine)
        weights, adapter = _weights(version_dir, version, kind, lora=engine.startswith(_OPENAI_LORA))
        spec = EngineSpec(
            kind=kind,
            model_id=version.id,
            weights=weights,
            adapter=adapter,
            tokenizer=version_dir / version.tokenizer if kind == "transformers" else None,
            url=url,
            wire="chat" if kind == "openai" else "completions",
            context=version.max_context,
            slots=1 if kind == "transformers" else slots,
            threads=threads,
            log=log,
        )
        prompts = ChatFormat.load(version_dir / version.tokenizer, system=version.system, thinking=version.thinking)
        return cls(
            name=name or version.name,
            version_id=version.id,
            version_name=version.name,
            base=version.base.name,
            spec=spec,
            prompts=prompts,
            defaults=version.generation,
            system=system,
            encoder=lambda text: list(prompts.tokenizer(text)["input_ids"]),
        )

    def request(
        self,
        messages: tuple[Message, ...],
        overrides: SamplingOverrides = SamplingOverrides(),
        *,
        form: Form | None = None,
        origin: Origin | None = None,
    ) -> GenerationRequest:
        """Return a gateway's request for a conversation, with this model's defaults and system prompt."""
        if self.system is not None and not any(message.role == "system" for message in messages):
            messages = (Message("system", self.system), *messages)
        origin = origin or Origin(name=self.name)
        return GenerationRequest(
            messages=messages, sampling=self.sampling(overrides), form=form or Form(), origin=origin
        )

    def common_ids(self) -> list[int]:
        """Return the token ids that every prompt of this model begins with: the system prompt, mostly."""
        if self.prompts is None:
            return []
        asked = [self.request((Message("user", text),)).messages for text in ("a", "?")]
        try:
            first, second = (self.prompts.prompt_ids(messages) for messages in asked)
        except ModelError:
            return []  # the template refuses the system prompt: every caller will be told so
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
        return [one for one, _ in alike][: self.spec.context // 2]

    def sampling(self, overrides: SamplingOverrides) -> Sampling:
        """Return complete settings: what the caller asked for over this model's defaults."""
        defaults = self.defaults
        return Sampling(
            max_tokens=_or(overrides.max_tokens, defaults.max_tokens),
            temperature=_or(overrides.temperature, defaults.temperature),
            top_p=_or(overrides.top_p, defaults.top_p),
            top_k=_or(overrides.top_k, 0),
            min_p=_or(overrides.min_p, 0.0),
            seed=overrides.seed,
            stop=overrides.stop,
            repetition_penalty=_or(overrides.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=_or(overrides.presence_penalty, 0.0),
            frequency_penalty=_or(overrides.frequency_penalty, 0.0),
            logit_bias=overrides.logit_bias,
        )


def make_gateway(
    served: ServedModel, limits: Limits | None = None, books: Books | None = None, hosts: Hosts | None = None
) -> Gateway:
    """Return a gateway for a served model; its engine is not started yet.

    Args:
        served: the model.
        limits: of the gateway.
        books: where the account of every request goes.
        hosts: children that several versions share; None for an engine of its own in any case.
    """
    engine: Engine
    admission: Admission | None = None
    if hosts is not None and can_share(served.spec):
        engine, admission = hosts.engine(served.spec, (limits or Limits()).queue)
    elif served.spec.kind == "openai":
        engine = OpenAIEngine(served.spec)
    else:
        engine = ChildEngine(served.spec, warm_up=served.common_ids)
    encoder = served.encoder if served.spec.wire == "completions" else None
    return Gateway(engine, served.prompts, limits, encoder=encoder, books=books, admission=admission)


def parse_engine(text: str) -> tuple[EngineKind, str | None]:
    """Read ``llamacpp``, ``transformers``, ``openai:URL`` or ``openai+lora:URL``.

    Raises:
        UsageError: anything else.
    """
    if text == "llamacpp":
        return "llamacpp", None
    if text == "transformers":
        return "transformers", None
    for prefix in (_OPENAI, _OPENAI_LORA):
        url = text.removeprefix(prefix)
        if text.startswith(prefix) and url.startswith(("http://", "https://")):
            return "openai", url
    raise UsageError("serving.unknown_engine", engine=text)


def _weights(folder: Path, version: ModelVersion, kind: EngineKind, *, lora: bool) -> tuple[Path | None, Path | None]:
    """Return weights and adapter for an engine."""
    if kind == "openai":
        return None, folder / _export(folder, version, "openai+lora", "adapter").path if lora else None
    if kind == "llamacpp":
        return folder / _export(folder, version, kind, "gguf").path, None
    if version.export("merged") is not None:
        return folder / _export(folder, version, kind, "merged").path, None
    adapter = folder / _export(folder, version, kind, "adapter").path
    base = folder.parent.parent / "models" / version.base.name
    if not base.is_dir():
        raise NotFoundError("serving.base_missing", str(base), base=version.base.name)
    return base, adapter


def _export(folder: Path, version: ModelVersion, engine: str, kind: str) -> Export:
    found = version.export(kind)
    if found is None or not (folder / found.path).exists():
        raise NotFoundError("serving.export_missing", str(folder), version=version.name, engine=engine, format=kind)
    return found


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
