"""Says a chat template in Ollama's own language, or refuses: a template that is nearly right is a wrong prompt.

Ollama ignores the template inside of a GGUF file for most models and renders a Go template from the Modelfile. Here
the parts of a conversation (what stands before and after a system prompt, a question, an answer) are read off from
what the real template makes of marked messages; then conversations are put together from the parts and compared with
the real template. Only if all are equal is the Go template written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from danlu.errors import ExportError, ModelError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message

_S, _U, _A = "\u2063system\u2063", "\u2063user\u2063", "\u2063answer\u2063"
_TRIALS: Final = (
    (Message("user", "Hello?\n\n你好"),),
    (Message("system", "Be short."), Message("user", "Hello?")),
    (Message("user", "1"), Message("assistant", "2"), Message("user", "3")),
    (
        Message("system", "Be short."),
        Message("user", "1"),
        Message("assistant", "2\n"),
        Message("user", " 3"),
        Message("assistant", "<b>4</b>"),
        Message("user", "5"),
    ),
)


@dataclass(frozen=True)
class OllamaTemplate:
    """A chat template as Ollama needs it.

    Attributes:
        template: in Go's template language.
        system: the system prompt that applies when a caller gives none.
        stops: texts that end an answer.
    """

    template: str
    system: str
    stops: tuple[str, ...]


@dataclass(frozen=True)
class _Parts:
    """What stands around each message."""

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    answer: tuple[str, str]
    ask: str

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt for a conversation."""
        around = {"system": self.system, "user": self.user, "assistant": self.answer}
        turns = (around[message.role][0] + message.content + around[message.role][1] for message in messages)
        return self.start + "".join(turns) + self.ask


def ollama_template(chat_format: ChatFormat, *, add_bos: bool) -> OllamaTemplate:
    """Express the template of a version for Ollama.

    Args:
        chat_format: tokenizer, system prompt and thinking policy.
        add_bos: whether llama.cpp puts the first token before every prompt by itself.

    Raises:
        ExportError: the template does something that Ollama's cannot.
    """
    bare = chat_format.with_system("")
    try:
        parts = _read_parts(bare)
        system = chat_format.system or _default_system(bare, parts)
        for trial in _TRIALS:
            messages = trial if trial[0].role == "system" or not system else (Message("system", system), *trial)
            if parts.render(messages) != chat_format.prompt_text(trial):
                raise _refused(" → ".join(message.role for message in trial))
    except ModelError as error:
        raise _refused(error.what()) from error
    start = parts.start
    bos = chat_format.tokenizer.bos_token
    if add_bos and bos and start.startswith(bos):
        start = start.removeprefix(bos)
    return OllamaTemplate(_go(parts, start), system, chat_format.stop_strings)


def _read_parts(bare: ChatFormat) -> _Parts:
    """Read the parts off from conversations with every kind of message, with and without the final request."""
    system, question, answer = Message("system", _S), Message("user", _U), Message("assistant", _A)
    try:
        before_system, between, until_answer, until_second, tail = _split(
            bare.prompt_text((system, question, answer, question)), (_S, _U, _A, _U)
        )
        user_after = _closed(bare, (system, question)).rsplit(_U, 1)[1]
        answer_after = _closed(bare, (system, question, answer)).rsplit(_A, 1)[1]
    except (ValueError, IndexError) as error:
        raise _refused("system → user → assistant → user") from error
    user_before = until_second.removeprefix(answer_after)
    bos = bare.tokenizer.bos_token or ""
    both = before_system.startswith(bos) and bare.prompt_text((question,)).startswith(bos)
    start = bos if both and not user_before.startswith(bos) else ""
    return _Parts(
        start=start,
        system=(before_system.removeprefix(start), between.removesuffix(user_before)),
        user=(user_before, user_after),
        answer=(until_answer.removeprefix(user_after), answer_after),
        ask=tail.removeprefix(user_after),
    )


def _closed(bare: ChatFormat, messages: Sequence[Message]) -> str:
    """Return a conversation without the request for an answer."""
    text = bare.tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        tokenize=False,
        add_generation_prompt=False,
    )
    return str(text)


def _split(text: str, marks: Sequence[str]) -> list[str]:
    """Split a text at each mark in turn; ValueError if one is missing."""
    pieces: list[str] = []
    for mark in marks:
        at = text.index(mark)
        pieces.append(text[:at])
        text = text[at + len(mark) :]
    return [*pieces, text]


def _default_system(bare: ChatFormat, parts: _Parts) -> str:
    """Return the system prompt that the template itself puts in when there is none; empty when it does not."""
    prompt = bare.prompt_text((Message("user", _U),))
    before = prompt.split(_U)[0].removeprefix(parts.start)
    if before == parts.user[0]:
        return ""
    opening, closing = parts.system
    inner = before.removesuffix(parts.user[0])
    if not (inner.startswith(opening) and inner.endswith(closing)):
        raise _refused("system")
    return inner.removeprefix(opening).removesuffix(closing)


def _go(parts: _Parts, start: str) -> str:
    """Write the Go template; every literal is a quoted string, so that no white space is lost or added."""
    turn = (
        '{{ if eq .Role "system" }}' + _around(parts.system)
        + '{{ else if eq .Role "user" }}' + _around(parts.user)
        + '{{ else if eq .Role "assistant" }}' + _around(parts.answer)
        + "{{ end }}"
    )  # fmt: skip
    return f"{_quoted(start)}{{{{ range .Messages }}}}{turn}{{{{ end }}}}{_quoted(parts.ask)}"


def _around(part: tuple[str, str]) -> str:
    return f"{_quoted(part[0])}{{{{ .Content }}}}{_quoted(part[1])}"


def _quoted(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _refused(reason: str) -> ExportError:
    return ExportError("export.ollama_template", reason=reason)
