"""The one way from a conversation to token ids, used in training, in evaluation and by every engine.

The tokenizer's own chat template is the only template; a model without one is given one (``base_template``). What is
learned of a conversation is derived by rendering it up to each assistant turn: the ids before the turn are exactly the
ids that an engine will be given there, and the ids after them, up to the end-of-turn token, are learned. Imports no
torch. Not for choosing what to say.

Reasoning models: a template may open ``<think>`` itself (DeepSeek-R1) or leave it to the model (Qwen3). With
``thinking="off"`` the prompt carries an empty think block, in training and in serving alike, and the block is never
learned, nor is reasoning that an answer carries; with ``"auto"`` the template decides and reasoning is learned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from danlu.errors import ModelError
from danlu.i18n import t
from danlu.models.base_template import TemplateName, give_template
from danlu.models.call_syntax import CallSyntax, example, syntax_of
from danlu.models.chat_template import THINK_CLOSE, THINK_OPEN, ChatTemplate, excerpt, with_thoughts, without_thoughts
from danlu.models.control_tokens import ControlTokens, Text
from danlu.models.messages import Message
from danlu.models.versions import Thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CLOSE_EMPTY_BLOCK", "THINK_CLOSE", "THINK_OPEN", "ChatFormat", "Learnable", "Rendered"]

# What ends an opened, empty block in the form that Qwen3 and the R1 distils write it.
CLOSE_EMPTY_BLOCK: Final = "\n" + THINK_CLOSE + "\n\n"
_MARK: Final = "\u2063danlu\u2063"


class Learnable(Protocol):
    """What of a conversation the chat format needs (``data.conversations.Conversation`` has it)."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns in order."""

    @property
    def learn(self) -> tuple[bool, ...]:
        """For each message whether it is learned."""

    @property
    def tools(self) -> str:
        """The tools that may be called, a JSON list as text; empty for none."""

    @property
    def row(self) -> int:
        """The row it came from, for messages to people."""


@dataclass(frozen=True)
class Rendered:
    """A conversation, or a part of it, as token ids.

    Attributes:
        ids: token ids, int, shape [T].
        learn: for each id whether the model is to learn to produce it, shape [T].
    """

    ids: tuple[int, ...]
    learn: tuple[bool, ...]


@dataclass(frozen=True)
class TurnText:
    """A learned turn as text.

    Attributes:
        prompt: what stands before it.
        answer: what is learned, the end of the turn included.
    """

    prompt: Text
    answer: Text


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer with its template, the system prompt and the thinking policy of one model version.

    Attributes:
        tokenizer: a transformers tokenizer with a chat template.
        system: system prompt that is put before conversations that have none; empty for none.
        thinking: ``auto`` leaves thinking to the template, ``off`` puts an empty think block into the prompt.
        extra_stop_ids: ids that end an answer beside those that the tokenizer and its template name.
        given: the template that a tokenizer without one was given; None where the template is its own.
    """

    tokenizer: PreTrainedTokenizerBase
    system: str = ""
    thinking: Thinking = "auto"
    extra_stop_ids: frozenset[int] = frozenset()
    given: TemplateName | None = None

    @classmethod
    def load(cls, folder: Path, system: str = "", thinking: Thinking = "auto") -> ChatFormat:
        """Load the tokenizer in ``folder`` and the end-of-turn ids that its ``generation_config.json`` names.

        A tokenizer without a chat template gets ChatML, as ``base_template`` writes it for this vocabulary.

        Raises:
            ModelError: no tokenizer there, one that can be given no template because it has no token that ends a
                text, or a damaged ``generation_config.json``.
        """
        from danlu.models.load import load_tokenizer

        tokenizer = load_tokenizer(folder)
        stops = _generation_stop_ids(folder)
        if tokenizer.chat_template:
            return cls(tokenizer, system, thinking, stops)
        made = give_template(tokenizer, "chatml")
        return cls(tokenizer, system, thinking, stops | {made.end}, given=made.name)

    def with_system(self, system: str) -> ChatFormat:
        """Return the same format with another system prompt."""
        return replace(self, system=system)

    def prompt_text(self, messages: Sequence[Message], tools: str = "") -> str:
        """Return the text that the model is given before it answers ``messages``.

        Args:
            messages: what was said.
            tools: the tools that may be called, a JSON list as text; empty for none.

        Raises:
            ModelError: the template refuses the conversation (a role it does not know, an order it does not allow), or
                would leave out a part of it; the message names the turn.
        """
        return str(self._prompt(messages, tools))

    def prompt_ids(self, messages: Sequence[Message], tools: str = "") -> list[int]:
        """Return the token ids that the model is given before it answers ``messages`` (see ``prompt_text``)."""
        return self._ids_of_text(self._prompt(messages, tools))

    def opens_thinking(self, messages: Sequence[Message], tools: str = "") -> bool:
        """Say whether the prompt ends inside an open think block, so that the answer will only close it."""
        return self.prompt_text(messages, tools).rstrip().endswith(THINK_OPEN)

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text that continues a prompt; marks in it are tokens."""
        return self._ids(text)

    @cached_property
    def call_syntax(self) -> CallSyntax | None:
        """How the template writes calls of tools; None when it writes none, or in a form that is not known."""
        once, twice = self._written_calls(1), self._written_calls(2)
        return None if once is None else syntax_of(once, twice)

    def _written_calls(self, number: int) -> str | None:
        messages, declared = example(number)
        for tools in (declared, ""):  # some write calls but no list of tools (R1's distils)
            try:
                answer = self._turn_text(messages, tools).answer.text
                return answer.removesuffix(self.end_of_turn).split(THINK_CLOSE)[-1]
            except ModelError:
                continue
        return None

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template under the thinking policy."""
        return ChatTemplate(self.tokenizer, self.thinking)

    @cached_property
    def control(self) -> ControlTokens:
        """The special tokens, and what becomes of them where people write them."""
        return ControlTokens(self.tokenizer, self.template.source)

    @property
    def can_think(self) -> bool:
        """Say whether the template knows think blocks at all."""
        return self.template.can_think

    @property
    def reasons(self) -> bool:
        """Say whether answers may begin with reasoning: the template knows it and the policy allows it."""
        return self.can_think and self.thinking == "auto"

    def training_sequences(self, messages: Sequence[Message], learn: Sequence[bool], tools: str = "") -> list[Rendered]:
        """Return what is learned from a conversation, as sequences of ids with a learn mask.

        Normally one sequence. A template that writes earlier turns differently from later ones (one that strips
        reasoning from the history, say) gives one sequence for each learned turn, because that is what an engine
        will be given at each of them. ``encode_many`` gives the same for many conversations, faster.

        Args:
            messages: the conversation, without the system prompt of this format.
            learn: for each message whether it is learned; only assistant messages may be.
            tools: the tools that may be called, a JSON list as text; empty for none.

        Raises:
            ModelError: the template refuses the conversation, or would leave out a part of it.
        """
        turns = self.turn_texts(messages, learn, tools)
        return _joined([(self._ids_of_text(turn.prompt), self._ids_of_text(turn.answer)) for turn in turns])

    def encode_many(self, conversations: Sequence[Learnable]) -> list[list[Rendered]]:
        """Return the training sequences of each conversation: those of ``training_sequences``, encoded together.

        Raises:
            ModelError: see ``training_sequences``; the message names the row.
        """
        written = [self._turn_texts_of(item) for item in conversations]
        ids = iter(self._ids_of([text for turns in written for turn in turns for text in (turn.prompt, turn.answer)]))
        return [_joined([(next(ids), next(ids)) for _ in turns]) for turns in written]

    def turn_texts(self, messages: Sequence[Message], learn: Sequence[bool], tools: str = "") -> list[TurnText]:
        """Return for each learned turn the text before it and the text that is learned; see ``training_sequences``."""
        return [self._turn_text(messages[: turn + 1], tools) for turn, wanted in enumerate(learn) if wanted]

    @cached_property
    def end_of_turn(self) -> str:
        """What the template writes after an answer, up to and including the token that ends it.

        Raises:
            ModelError: the template writes no token that ends an answer, so no engine would know when to stop.
        """
        text = self.template.render((Message("user", "?"), Message("assistant", _MARK)), ask=False)
        tail = text[text.rfind(_MARK) + len(_MARK) :]
        known = [self.tokenizer.convert_ids_to_tokens(i) for i in sorted(self._configured_stop_ids)]
        ends = [tail.find(token) + len(token) for token in known if token in tail]
        if not ends:
            added = (token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)
            ends = [tail.find(token) + len(token) for token in added if token in tail]
        if not ends:
            raise ModelError("chat_format.no_end_of_turn")
        return tail[: min(ends)]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids after which an answer is over: the end of a turn, and the ids that the model's settings name."""
        return self._configured_stop_ids | {self._ids(self.end_of_turn)[-1]}

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """The same as texts, for engines that only know texts."""
        return tuple(sorted(self.tokenizer.convert_ids_to_tokens(list(self.stop_ids))))

    @property
    def _configured_stop_ids(self) -> frozenset[int]:
        eos = self.tokenizer.eos_token_id
        return self.extra_stop_ids | (frozenset() if eos is None else {eos})

    def _turn_texts_of(self, item: Learnable) -> list[TurnText]:
        try:
            return self.turn_texts(item.messages, item.learn, item.tools)
        except ModelError as error:
            raise ModelError(error.key, error.where or t("templates.at_row", row=item.row), **error.params) from error

    def _prepared(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return what is rendered: with the system prompt and, where nothing is to be thought, without thoughts."""
        if self.thinking == "off":
            messages = [without_thoughts(message) for message in messages]
        if not self.system or (messages and messages[0].role == "system"):
            return messages
        return (Message("system", self.system), *messages)

    def _prompt(self, messages: Sequence[Message], tools: str) -> Text:
        hidden, stand_ins = self.control.hide(self._prepared(messages))
        if hidden:
            self.template.require_written(hidden, tools)
        return Text(self._asked(hidden, tools), stand_ins)

    def _asked(self, messages: Sequence[Message], tools: str) -> str:
        text = self.template.render(messages, tools, ask=True)
        if self.thinking == "off" and text.rstrip().endswith(THINK_OPEN):
            text = text.rstrip() + "\n" + CLOSE_EMPTY_BLOCK
        return text

    def _turn_text(self, messages: Sequence[Message], tools: str) -> TurnText:
        """Return the prompt and what follows it when ``messages`` ends with the answer, up to the end of the turn."""
        hidden, stand_ins = self.control.hide(self._prepared(messages))
        self.template.require_written(hidden, tools)
        prompt = self._asked(hidden[:-1], tools)
        whole = self.template.render(hidden, tools, ask=False)
        return TurnText(Text(prompt, stand_ins), Text(self._answer(prompt, whole, hidden), stand_ins))

    def _answer(self, prompt: str, whole: str, messages: Sequence[Message]) -> str:
        """Return what an engine that is given the prompt is to write: the last message and the end of the turn."""
        message, end = messages[-1], self.end_of_turn
        until = whole.rfind(end)
        if until >= len(prompt) and whole.startswith(prompt) and _kept(message, whole[len(prompt) : until]):
            return whole[len(prompt) : until + len(end)]
        # The template writes the answer of a finished conversation differently from the one it asks for (R1 opens
        # <think> only in the prompt), or alters it: what the engine's prompt calls for is the text itself.
        opening = prompt.rstrip()
        opens = opening.endswith(THINK_OPEN)
        if message.tool_calls:  # its text is the template's own; behind a block that the prompt has opened it is closed
            head = opening.removesuffix(THINK_OPEN)
            called = whole[len(head) : until].lstrip("\n")
            if not (opens and until >= 0 and whole.startswith(head) and _kept(message, called)):
                raise ModelError(
                    "templates.call_unplaced", turn=len(messages), name=message.tool_calls[0].name,
                    excerpt=excerpt(message),
                )  # fmt: skip
            return CLOSE_EMPTY_BLOCK + called + end
        content = with_thoughts(message).strip()
        if opens and THINK_CLOSE in content:
            content = content.removeprefix(THINK_OPEN).lstrip("\n")
        elif opens:  # a plain answer among reasoned ones: it closes the block that the prompt has opened
            content = CLOSE_EMPTY_BLOCK + content
        return content + end

    def _ids_of(self, texts: Sequence[Text]) -> list[list[int]]:
        """Return the ids of texts, those without stand-ins together: on several threads where there are cores."""
        plain = [text.text for text in texts if not text.stand_ins]
        if not plain:
            return [self._ids_of_text(text) for text in texts]
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return [self._ids_of_text(text) for text in texts]
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        found = iter(backend.encode_batch_fast(plain, add_special_tokens=False))
        return [self._ids_of_text(text) if text.stand_ins else next(found).ids for text in texts]

    def _ids_of_text(self, text: Text) -> list[int]:
        return self.control.ids(text) if text.stand_ins else self._ids(text.text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _kept(message: Message, text: str) -> bool:
    """Say whether an answer stands in what the template has written of it."""
    said = without_thoughts(message).content.strip()
    thought = message.reasoning.strip()
    return said in text and thought in text and all(call.name in text for call in message.tool_calls)


def _joined(turns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Rendered]:
    """Return the learned turns of a conversation as sequences; a turn whose prompt goes on from another joins that.

    Args:
        turns: of each turn the ids before it and the ids that are learned.
    """
    sequences: list[Rendered] = []
    for prompt, answer in turns:
        mask = [False] * len(prompt) + [True] * len(answer)
        if sequences and tuple(prompt[: len(sequences[-1].ids)]) == sequences[-1].ids:
            earlier = sequences.pop()
            mask[: len(earlier.learn)] = earlier.learn
        sequences.append(Rendered((*prompt, *answer), tuple(mask)))
    return sequences


def _generation_stop_ids(folder: Path) -> frozenset[int]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return frozenset()
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise ModelError("models.config_damaged", str(path), reason=str(error)) from error
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])
