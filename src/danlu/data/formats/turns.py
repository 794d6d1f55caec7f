"""Lists of messages to turns: OpenAI's (``role``, ``content``) and ShareGPT's (``from``, ``value``), item by item.

Also says whether turns follow each other as a conversation can be learned. Not for whole rows (``messages``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.data.formats.base import excerpt, json_in, require_roles
from danlu.data.rows import JsonValue, Row, kind_of, place
from danlu.errors import DataError
from danlu.models.messages import Message, Role, ToolCall

# What the field's tools and data sets call the speakers; compared without case.
ROLES: Final[dict[str, Role]] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "系统": "system", "用户": "user", "助手": "assistant", "助理": "assistant", "工具": "tool",
}  # fmt: skip
_CALLS: Final = frozenset({"function_call", "tool_call"})
ROLE_KEYS: Final = ("role", "from", "speaker")
CONTENT_KEYS: Final = ("content", "value", "text")
_REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
_PICTURES: Final = ("image", "audio", "video", "file")


@dataclass(frozen=True)
class Turn:
    """A message and whether it is learned."""

    message: Message
    learn: bool


def turns_of(file: Path | str, row: Row, field: str, value: JsonValue) -> list[Turn]:
    """Read a list of messages, in any order.

    Raises:
        DataError: it is no list of messages; the place names the message by its number, from 1.
    """
    items = require_roles(file, row, field, value)
    return [turn_of(file, row, f"{field}[{number}]", item) for number, item in enumerate(items, start=1)]


def turn_of(file: Path | str, row: Row, field: str, item: dict[str, JsonValue]) -> Turn:
    """Read a message.

    Raises:
        DataError: it lacks something or holds something that is not understood.
    """
    role_key = next((key for key in ROLE_KEYS if key in item), None)
    if role_key is None:
        raise DataError("formats.no_role", place(file, row, field), found=", ".join(list(item)[:8]) or "–")
    spoken = item[role_key]
    role = ROLES.get(spoken.strip().casefold()) if isinstance(spoken, str) else None
    if role is None:
        where = place(file, row, f"{field}.{role_key}")
        raise DataError("formats.unknown_role", where, role=excerpt(spoken))
    content_key = next((key for key in CONTENT_KEYS if key in item), None)
    content, reasoning, calls = _content(file, row, f"{field}.{content_key}", item.get(content_key or ""))
    for key in _REASONING_KEYS:
        thought = item.get(key)
        if isinstance(thought, str) and thought.strip():
            reasoning = reasoning or thought.strip()
        elif thought is not None and not isinstance(thought, str):
            raise DataError("data.field_not_text", place(file, row, f"{field}.{key}"), field=key, kind=kind_of(thought))
    calls += _calls(file, row, f"{field}.tool_calls", item.get("tool_calls"))
    if isinstance(item.get("function_call"), dict):
        calls.append(_call(file, row, f"{field}.function_call", item["function_call"]))
    if isinstance(spoken, str) and spoken.strip().casefold() in _CALLS:
        calls += _called(file, row, f"{field}.{content_key}", content)
        content = ""
    if content_key is None and not calls:
        raise DataError("formats.no_content", place(file, row, field), found=", ".join(list(item)[:8]))
    if role != "assistant" and (calls or reasoning):
        raise DataError("formats.only_assistant", place(file, row, field), role=role)
    return Turn(Message(role, content, reasoning, tuple(calls)), _learned(file, row, field, item, role))


def require_order(file: Path | str, row: Row, field: str, turns: Sequence[Turn], *, answered: bool = True) -> None:
    """Check that turns follow each other as in a conversation: the user asks, the assistant answers.

    Args:
        file: the file, for the message.
        row: the row.
        field: the field that holds the turns.
        turns: the turns.
        answered: the last turn must be the assistant's; else it must not be.

    Raises:
        DataError: they do not; the message names the turn, from 1.
    """
    if not turns:
        raise DataError("formats.no_turns", place(file, row, field), field=field)
    before = ""
    for number, turn in enumerate(turns, start=1):
        message, where = turn.message, place(file, row, f"{field}[{number}]")
        if message.role == "system" and number > 1:
            raise DataError("formats.late_system", where, turn=number)
        if message.role == "assistant" and before in {"", "system"}:
            raise DataError("formats.answer_first", where, turn=number)
        if message.role == before and message.role in {"user", "assistant"}:
            raise DataError("formats.twice_in_a_row", where, turn=number, role=message.role)
        # After an assistant who calls nothing it is read: sets have calls within texts; the check names them.
        if message.role == "tool" and before not in {"assistant", "tool"}:
            raise DataError("formats.tool_without_call", where, turn=number)
        if message.role == "user" and before == "tool":
            raise DataError("formats.tool_unanswered", where, turn=number)
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            raise DataError("formats.empty_turn", where, turn=number, role=message.role)
        before = message.role
    if answered and before != "assistant":
        raise DataError("formats.unanswered", place(file, row, f"{field}[{len(turns)}]"), role=before)
    if not answered and before not in {"user", "tool"}:
        raise DataError("data.prompt_end", place(file, row, field), field=field)


def joined(value: JsonValue) -> JsonValue:
    """Return a list of messages in which texts of the same speaker in a row are one, an empty line between them.

    Anything but a text (calls, parts, what a tool answered) is left as it is, and so is what is no list of messages.
    """
    if not isinstance(value, list):
        return value
    made: list[JsonValue] = []
    for item in value:
        key = _joinable(item)
        if made and key is not None and key == _joinable(made[-1]):
            before, content = made[-1], key[1]
            assert isinstance(before, dict)
            assert isinstance(item, dict)
            made[-1] = {**before, content: f"{before[content]}\n\n{item[content]}"}
        else:
            made.append(item)
    return made


def _joinable(item: JsonValue) -> tuple[Role, str] | None:
    """Return who speaks, and the key of the text, of a message that is nothing but a text."""
    if not isinstance(item, dict) or len(item) != 2:
        return None
    role_key = next((key for key in ROLE_KEYS if key in item), "")
    content_key = next((key for key in CONTENT_KEYS if key in item), "")
    spoken, said = item.get(role_key), item.get(content_key)
    if not isinstance(spoken, str) or not isinstance(said, str) or spoken.strip().casefold() in _CALLS:
        return None
    role = ROLES.get(spoken.strip().casefold())
    return (role, content_key) if role in {"user", "assistant"} else None


def uncalled(messages: Sequence[Message]) -> int | None:
    """Return the first message, from 1, in which a tool answers an assistant who has called none; None for none."""
    called = False
    for number, message in enumerate(messages, start=1):
        if message.role == "assistant":
            called = bool(message.tool_calls)
        elif message.role == "tool" and not called:
            return number
    return None


def _content(file: Path | str, row: Row, field: str, value: JsonValue) -> tuple[str, str, list[ToolCall]]:
    """Return the text, the reasoning and the calls that a message's content holds."""
    if value is None:
        return "", "", []
    if isinstance(value, str):
        return value, "", []
    if not isinstance(value, list):
        raise DataError("data.field_not_text", place(file, row, field), field=field, kind=kind_of(value))
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for number, part in enumerate(value, start=1):
        where = f"{field}[{number}]"
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise DataError("data.field_not_text", place(file, row, where), field=where, kind=kind_of(part))
        kind = str(part.get("type", "text"))
        if any(kind.startswith((name, f"input_{name}")) for name in _PICTURES):
            raise DataError("formats.not_text", place(file, row, where), kind=kind)
        said = next((part[key] for key in ("text", "value", "content", "reasoning", "thinking") if key in part), None)
        if kind in {"tool_call", "function_call"}:
            calls += _called(file, row, where, said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
        elif not isinstance(said, str):
            raise DataError("data.field_not_text", place(file, row, where), field=where, kind=kind_of(said))
        elif kind in {"reasoning", "thinking", "reasoning_content"}:
            thoughts.append(said)
        elif kind in {"text", "input_text", "output_text", "refusal"}:
            texts.append(said)
        else:
            raise DataError("formats.unknown_part", place(file, row, where), kind=kind)
    return "".join(texts), "\n".join(thoughts).strip(), calls


def _calls(file: Path | str, row: Row, field: str, value: JsonValue) -> list[ToolCall]:
    if value is None:
        return []
    items = require_roles(file, row, field, value)
    return [_call(file, row, f"{field}[{number}]", item) for number, item in enumerate(items, start=1)]


def _call(file: Path | str, row: Row, field: str, value: JsonValue) -> ToolCall:
    """Read ``{name, arguments}``, or the same within ``function``."""
    inner = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise DataError("formats.call_shape", place(file, row, field), value=excerpt(value))
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json_in(file, row, field, arguments or "{}", "formats.call_arguments", named="value")
    if not isinstance(arguments, dict):
        raise DataError("formats.call_arguments", place(file, row, field), value=excerpt(inner.get("arguments")))
    return ToolCall(str(inner["name"]), json.dumps(arguments, ensure_ascii=False))


def _called(file: Path | str, row: Row, field: str, text: str) -> list[ToolCall]:
    """Read a call, or a list of calls, that is written as JSON in a text."""
    value = json_in(file, row, field, text, "formats.call_json")
    items = value if isinstance(value, list) else [value]
    if not items:
        raise DataError("formats.call_shape", place(file, row, field), value="[]")
    return [_call(file, row, field, item) for item in items]


def _learned(file: Path | str, row: Row, field: str, item: dict[str, JsonValue], role: Role) -> bool:
    """Read ``learn`` (true or false) or OpenAI's ``weight`` (1 or 0); by default answers are learned."""
    wished: bool | None = None
    for key in ("learn", "weight"):
        value = item.get(key)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in {0, 1}:
            raise DataError("formats.message_weight", place(file, row, f"{field}.{key}"), value=excerpt(value))
        wished = bool(value)
    if wished and role != "assistant":
        raise DataError("formats.learn_assistant", place(file, row, field), role=role)
    return role == "assistant" if wished is None else wished
