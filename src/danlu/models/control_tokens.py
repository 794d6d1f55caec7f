"""Marks of a chat template that stand in what people write: kept as text, so that nobody ends a turn by typing its end.

``<|im_end|>`` in a question is eleven characters, not the end of a turn. While a conversation is rendered such marks
are replaced by characters that no text contains; the ids are then made piece by piece between the template's own
marks, which gives the ids of the whole text where nothing was replaced. Not for rendering (``chat_template``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from danlu.models.messages import Message

if TYPE_CHECKING:
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
    """The special tokens of a tokenizer.

    Attributes:
        tokenizer: a transformers tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase

    def written_in(self, messages: Iterable[Message]) -> list[str]:
        """Return the special tokens that stand, written out, in messages; each once, in order."""
        if self._pattern is None:
            return []
        found = (self._pattern.findall(text) for message in messages for text in _texts(message))
        return list(dict.fromkeys(token for tokens in found for token in tokens))

    def hide(self, messages: Sequence[Message]) -> tuple[Sequence[Message], StandIns]:
        """Return messages with stand-ins for the special tokens written in them, and what each stands for."""
        if self._pattern is None or not self.separable:
            return messages, ()
        search = self._pattern.search
        if not any(search(text) for message in messages for text in _texts(message)):
            return messages, ()
        known = set().union(*(text for message in messages for text in _texts(message)))
        free = (char for char in map(chr, range(_FIRST_STAND_IN, 0x10FFFE)) if char not in known)
        stand_ins = tuple(zip(free, self.written_in(messages), strict=False))
        chars = {token: char for char, token in stand_ins}
        pattern = self._pattern

        def hidden(text: str) -> str:
            return pattern.sub(lambda match: chars[match.group()], text)

        changed = [
            replace(
                message,
                content=hidden(message.content),
                reasoning=hidden(message.reasoning),
                tool_calls=tuple(replace(call, arguments=hidden(call.arguments)) for call in message.tool_calls),
            )
            for message in messages
        ]
        return changed, stand_ins

    def ids(self, text: Text) -> list[int]:
        """Return the ids of a text whose hidden marks are to be read as text."""
        if self._pattern is None:
            return self._encode(text.text, split=False)
        ids: list[int] = []
        at = 0
        for match in self._pattern.finditer(text.text):
            token = match.group()
            before = text.text[at : match.start()]
            if self._specials[token].lstrip:
                before = before.rstrip()
            ids += self._encode(_put_back(before, text.stand_ins), split=True)
            ids.append(self._specials[token].id)
            at = match.end()
            if self._specials[token].rstrip:
                at += len(text.text[at:]) - len(text.text[at:].lstrip())
        return ids + self._encode(_put_back(text.text[at:], text.stand_ins), split=True)

    @cached_property
    def separable(self) -> bool:
        """Whether the pieces between special tokens can be encoded one by one; tried on texts with odd edges.

        A tokenizer that treats the beginning of a text unlike the place after a special token cannot. Marks that
        people write are then special tokens, as they are to other programs.
        """
        if not self._specials:
            return False
        token = next(iter(self._specials))
        text = "".join(token + edge for edge in _EDGES) + token
        return self.ids(Text(text)) == self._encode(text, split=False)

    @cached_property
    def _specials(self) -> dict[str, _Special]:
        added = self.tokenizer.added_tokens_decoder.items()
        return {
            token.content: _Special(index, token.lstrip, token.rstrip)
            for index, token in added
            if token.special and token.content not in _MEANT and not token.content.isspace()
        }

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """Finds special tokens, the longest first where one begins like another."""
        tokens = sorted(self._specials, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def _encode(self, text: str, *, split: bool) -> list[int]:
        if not text:
            return []
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        return ids


@dataclass(frozen=True)
class _Special:
    id: int
    lstrip: bool
    rstrip: bool


def _texts(message: Message) -> tuple[str, ...]:
    if not (message.reasoning or message.tool_calls):
        return (message.content,)
    return (message.content, message.reasoning, *(call.arguments for call in message.tool_calls))


def _put_back(text: str, stand_ins: StandIns) -> str:
    for char, token in stand_ins:
        text = text.replace(char, token)
    return text
