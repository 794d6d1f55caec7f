"""Marks of a chat template that stand in what people write: kept as text, so that nobody ends a turn by typing its end.

``<|im_end|>`` in a question is eleven characters, not the end of a turn. While a conversation is rendered such marks
are replaced by characters that no text contains; the ids are then made piece by piece between the template's own
marks, which gives the ids of the whole text where nothing was replaced. Not for rendering (``chat_template``).

Marks are the special tokens, and the other added tokens that the template itself writes: some tokenizers
(DeepSeek-R1's) do not call theirs special. In an answer only special tokens are hidden; others, such as
``<tool_call>``, may be what the answer is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from danlu.models.messages import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Whoever writes these in an answer means them: reasoning may lie in the text of a message.
_MEANT: Final = frozenset({"<think>", "</think>"})
# Unicode's private use area of plane 15: characters that no text has unless two programs agreed on them.
_FIRST_STAND_IN: Final = 0xF0000
StandIns = tuple[tuple[str, str], ...]
# Texts with what differs between tokenizers at the edge of a piece: spaces, line breaks, scripts, digits.
_EDGES: Final = ("a b", " a", "\n\na", "你好", "🙂 ", "1 2", "a\n")


@dataclass(frozen=True)
class Text:
    """A rendered text.

    Attributes:
        text: the text, marks that people wrote replaced by stand-ins.
        stand_ins: each stand-in with the mark behind it; mostly none.
    """

    text: str
    stand_ins: StandIns = ()

    def __str__(self) -> str:
        """Return the text with every mark in its place."""
        return _put_back(self.text, self.stand_ins)


@dataclass(frozen=True)
class ControlTokens:
    """The marks of a tokenizer and its template.

    Attributes:
        tokenizer: a transformers tokenizer.
        template: the text of its chat template.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str = ""

    def written_in(self, messages: Iterable[Message]) -> list[str]:
        """Return the marks that stand, written out, in messages; each once, in order."""
        if self._pattern is None:
            return []
        found = (self._pattern_for(message).findall(text) for message in messages for text in _texts(message))
        return list(dict.fromkeys(token for tokens in found for token in tokens))

    def hide(self, messages: Sequence[Message]) -> tuple[Sequence[Message], StandIns]:
        """Return messages with stand-ins for the marks written in them, and what each stands for."""
        if self._pattern is None or not self.separable:
            return messages, ()
        search = self._pattern.search
        if not any(search(text) for message in messages for text in _texts(message)):
            return messages, ()
        known = set().union(*(text for message in messages for text in _texts(message)))
        free = (char for char in map(chr, range(_FIRST_STAND_IN, 0x10FFFE)) if char not in known)
        stand_ins = tuple(zip(free, self.written_in(messages), strict=False))
        chars = {token: char for char, token in stand_ins}
        return [self._hidden(message, chars) for message in messages], stand_ins

    def ids(self, text: Text) -> list[int]:
        """Return the ids of a text whose hidden marks are to be read as text."""
        if self._pattern is None:
            return self._whole(text.text)
        ids: list[int] = []
        at = 0
        for match in self._pattern.finditer(text.text):
            mark = self._marks[match.group()]
            before = text.text[at : match.start()]
            ids += self._piece(_put_back(before.rstrip() if mark.lstrip else before, text.stand_ins))
            ids.append(mark.id)
            at = match.end()
            if mark.rstrip:
                at += len(text.text[at:]) - len(text.text[at:].lstrip())
        return ids + self._piece(_put_back(text.text[at:], text.stand_ins))

    @cached_property
    def separable(self) -> bool:
        """Whether the pieces between marks can be encoded one by one; tried on texts with odd edges.

        A tokenizer that treats the beginning of a text unlike the place after a mark cannot. Marks that people write
        are then marks, as they are to other programs.
        """
        text = "".join(token + edge for token in list(self._marks)[:3] for edge in _EDGES)
        return bool(self._marks) and self.ids(Text(text)) == self._whole(text)

    def _hidden(self, message: Message, chars: dict[str, str]) -> Message:
        pattern = self._pattern_for(message)

        def hidden(text: str) -> str:
            return pattern.sub(lambda match: chars[match.group()], text)

        calls = tuple(replace(call, arguments=hidden(call.arguments)) for call in message.tool_calls)
        return replace(message, content=hidden(message.content), reasoning=hidden(message.reasoning), tool_calls=calls)

    @cached_property
    def _marks(self) -> dict[str, _Mark]:
        added = self.tokenizer.added_tokens_decoder.items()
        return {
            token.content: _Mark(index, token.lstrip, token.rstrip, token.special)
            for index, token in added
            if (token.special or token.content in self.template)
            and token.content not in _MEANT
            and not token.content.isspace()
        }

    def _pattern_for(self, message: Message) -> re.Pattern[str]:
        found = self._special_pattern if message.role == "assistant" else self._pattern
        assert found is not None, "there are marks"
        return found

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return _finding(self._marks) if self._marks else None

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return _finding([token for token, mark in self._marks.items() if mark.special])

    @cached_property
    def _without_marks(self) -> Tokenizer:
        """The tokenizer as it would be without any mark; ids of other added tokens may differ, their texts do not."""
        from tokenizers import Tokenizer

        content = json.loads(self.tokenizer.backend_tokenizer.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in self._marks]
        content |= {"post_processor": None, "truncation": None, "padding": None}
        return Tokenizer.from_str(json.dumps(content))

    def _piece(self, text: str) -> list[int]:
        if not text:
            return []
        tokens = self._without_marks.encode(text, add_special_tokens=False).tokens
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(tokens)
        return ids

    def _whole(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


@dataclass(frozen=True)
class _Mark:
    id: int
    lstrip: bool
    rstrip: bool
    special: bool


def _finding(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return what finds tokens, the longest first where one begins like another; nothing where there are none."""
    found = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found)) if found else r"(?!)")


def _texts(message: Message) -> tuple[str, ...]:
    if not (message.reasoning or message.tool_calls):
        return (message.content,)
    return (message.content, message.reasoning, *(call.arguments for call in message.tool_calls))


def _put_back(text: str, stand_ins: StandIns) -> str:
    for char, token in stand_ins:
        text = text.replace(char, token)
    return text
