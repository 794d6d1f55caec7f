"""From a caller's request to what an engine is asked: the rendered prompt, and how the answer is to be read.

The same for every engine on the ``completions`` wire; servers on the ``chat`` wire render, constrain and find calls by
themselves. Blocking: a long conversation takes its time. Not for admission and clocks (``gateway``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from danlu.errors import UsageError
from danlu.models.call_syntax import CallSyntax
from danlu.models.chat_format import CLOSE_EMPTY_BLOCK
from danlu.models.messages import Message
from danlu.serving.engine import EngineRequest, EngineSpec, Form, GenerationRequest
from danlu.serving.tool_calls import ToolCallScanner, declared


class PromptFormat(Protocol):
    """What the gateway needs of ``danlu.models.chat_format.ChatFormat``."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn, should an engine print them."""
        ...

    @property
    def call_syntax(self) -> CallSyntax | None:
        """How calls of tools are written; None where they are not."""
        ...

    def prompt_ids(self, messages: Sequence[Message], tools: str = "") -> list[int]:
        """Render a conversation, ready for the answer."""
        ...

    def opens_thinking(self, messages: Sequence[Message], tools: str = "") -> bool:
        """Say whether the rendered prompt ends inside a think block."""
        ...

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text that continues a prompt."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A request on its way to the engine, and how its answer is read.

    Attributes:
        request: what the engine is asked.
        thinking_opened: the prompt ends inside a think block.
        given: the beginning of the answer, which stands in the prompt already.
        calls: finds calls of tools; None where none were declared.
    """

    request: EngineRequest
    thinking_opened: bool = False
    given: str = ""
    calls: ToolCallScanner | None = None


def prepare(request: GenerationRequest, prompts: PromptFormat | None, spec: EngineSpec) -> Prepared:
    """Render a request for an engine.

    Args:
        request: of a caller.
        prompts: renders messages; None only for the ``chat`` wire.
        spec: the engine.

    Raises:
        ModelError: the template refuses the conversation or would leave out a part of it.
        UsageError: this model or its engine cannot give the answer the form that was asked for.
    """
    if request.prompt_ids is not None:
        return Prepared(_engine_request(request, request.prompt_ids, prompts, spec))
    if spec.wire == "chat" or prompts is None:
        # The ids are only counted, so that a prompt that is too long is refused here; with tools the server may
        # write it in another way.
        counted = prompts.prompt_ids(request.messages) if prompts is not None and not request.form.tools else ()
        return Prepared(_engine_request(request, tuple(counted), prompts, spec))
    form = request.form
    given, syntax, scanner = "", None, None
    if form.tools:
        syntax, scanner, form, given = _calls(request, form, prompts)
    ids = prompts.prompt_ids(request.messages, form.tools)
    opened = prompts.opens_thinking(request.messages, form.tools)
    if form.schema is not None:
        if spec.kind == "transformers":
            raise UsageError("serving.no_schema", model=request.origin.name or spec.model_id)
        # A grammar holds from the first token on, so there is no room for thoughts.
        ids += prompts.text_ids((CLOSE_EMPTY_BLOCK if opened else "") + given)
        opened = False
    built = _engine_request(replace(request, form=form), tuple(ids), prompts, spec)
    shown = tuple(syntax.begin.split()[:1]) if syntax is not None else ()
    return Prepared(replace(built, shown=shown), opened, given, scanner)


def _calls(
    request: GenerationRequest, form: Form, prompts: PromptFormat
) -> tuple[CallSyntax, ToolCallScanner, Form, str]:
    """Return how calls are written and found, the form with what holds the engine to one, and how that begins."""
    syntax, name = prompts.call_syntax, request.origin.name
    if syntax is None:
        raise UsageError("serving.no_calls", model=name)
    tools = declared(form.tools)
    scanner = ToolCallScanner(syntax, tools, one=form.one_call)
    if not form.must_call:
        return syntax, scanner, form, ""
    held = syntax.must_call({name: tools[name] for name in form.must_call})
    if held is None:
        raise UsageError("serving.one_tool", model=name)
    given, schema = held
    return syntax, scanner, replace(form, schema=schema), given


def _engine_request(
    request: GenerationRequest, ids: tuple[int, ...], prompts: PromptFormat | None, spec: EngineSpec
) -> EngineRequest:
    sampling = replace(request.sampling, max_tokens=max(1, min(request.sampling.max_tokens, spec.context - len(ids))))
    stop_ids = tuple(sorted(prompts.stop_ids)) if prompts is not None else ()
    return EngineRequest(ids, request.messages, sampling, stop_ids, request.form, request_id=request.origin.request_id)
