"""The one way from a conversation to token ids, used in training, in evaluation and by every engine.

The tokenizer's own chat template is the only template. What is learned of a conversation is derived by rendering it
up to each assistant turn: the ids before the turn are exactly the ids that an engine will be given there, and the
ids after them, up to the end-of-turn token, are learned. Imports no torch. Not for choosing what to say.

Reasoning models: a template may open ``<think>`` itself (DeepSeek-R1) or leave it to the model (Qwen3). With
``thinking="off"`` the prompt carries an empty think block, in training and in serving alike, and the block is never
learned; with ``"auto"`` the template decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

from danlu.errors import ModelError
from danlu.models.messages import Message, ToolCall
from danlu.models.versions import Thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
# What ends an opened, empty block in the form that Qwen3 and the R1 distils write it.
_CLOSE_EMPTY_BLOCK: Final = "\n" + THINK_CLOSE + "\n\n"
_MARK: Final = "\u2063danlu\u2063"


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
class ChatFormat:
    """A tokenizer with its template, the system prompt and the thinking policy of one model version.

    Attributes:
        tokenizer: a transformers tokenizer with a chat template.
        system: system prompt that is put before conversations that have none; empty for none.
        thinking: ``auto`` leaves thinking to the template, ``off`` puts an empty think block into the prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    system: str = ""
    thinking: Thinking = "auto"
    extra_stop_ids: frozenset[int] = frozenset()

    @classmethod
    def load(cls, folder: Path, system: str = "", thinking: Thinking = "auto") -> ChatFormat:
        """Load the tokenizer in ``folder`` and the end-of-turn ids that its ``generation_config.json`` names.

        A base model without a chat template gets ChatML (``base_template``).

        Raises:
            ModelError: no tokenizer there, one without any token that ends a text, or a damaged
                ``generation_config.json``.
        """
        from danlu.models.base_template import chatml_template
        from danlu.models.load import load_tokenizer

        tokenizer = load_tokenizer(folder)
        if not tokenizer.chat_template:
            tokenizer.chat_template = chatml_template(tokenizer)
        return cls(tokenizer, system, thinking, _generation_stop_ids(folder))

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
                would leave out tools, calls, what a tool answered, or the system prompt.
        """
        whole = self._with_system(messages)
        self._require_written(whole, tools)
        text = self._render(whole, tools, add_generation_prompt=True)
        if self.thinking == "off" and text.rstrip().endswith(THINK_OPEN):
            text = text.rstrip() + "\n" + _CLOSE_EMPTY_BLOCK
        return text

    def prompt_ids(self, messages: Sequence[Message], tools: str = "") -> list[int]:
        """Return the token ids that the model is given before it answers ``messages`` (see ``prompt_text``)."""
        return self._ids(self.prompt_text(messages, tools))

    def opens_thinking(self, messages: Sequence[Message]) -> bool:
        """Say whether the prompt ends inside an open think block, so that the answer will only close it."""
        return self.prompt_text(messages).rstrip().endswith(THINK_OPEN)

    @cached_property
    def can_think(self) -> bool:
        """Say whether the template knows think blocks at all."""
        return THINK_OPEN in str(self.tokenizer.chat_template) or THINK_CLOSE in str(self.tokenizer.chat_template)

    @property
    def reasons(self) -> bool:
        """Say whether answers may begin with reasoning: the template knows it and the policy allows it."""
        return self.can_think and self.thinking == "auto"

    def training_sequences(self, messages: Sequence[Message], learn: Sequence[bool], tools: str = "") -> list[Rendered]:
        """Return what is learned from a conversation, as sequences of ids with a learn mask.

        Normally one sequence. A template that writes earlier turns differently from later ones (one that strips
        reasoning from the history, say) gives one sequence for each learned turn, because that is what an engine
        will be given at each of them.

        Args:
            messages: the conversation, without the system prompt of this format.
            learn: for each message whether it is learned; only assistant messages may be.
            tools: the tools that may be called, a JSON list as text; empty for none.

        Raises:
            ModelError: the template refuses the conversation.
        """
        pairs = [(self._ids(prompt), self._ids(answer)) for prompt, answer in self.turn_texts(messages, learn, tools)]
        return joined(pairs)

    def turn_texts(self, messages: Sequence[Message], learn: Sequence[bool], tools: str = "") -> list[tuple[str, str]]:
        """Return for each learned turn the text before it and the text that is learned; see ``training_sequences``."""
        return [
            self._turn_texts(messages[: turn + 1], tools)
            for turn in (index for index, wanted in enumerate(learn) if wanted)
        ]

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of rendered texts, those of many at once: on several threads where there are several cores."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return found

    @cached_property
    def end_of_turn(self) -> str:
        """What the template writes after an answer, up to and including the token that ends it.

        Raises:
            ModelError: the template writes no token that ends an answer, so no engine would know when to stop.
        """
        text = self._render((Message("user", "?"), Message("assistant", _MARK)), add_generation_prompt=False)
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

    def _turn_texts(self, messages: Sequence[Message], tools: str) -> tuple[str, str]:
        """Return the prompt and what follows it when ``messages`` ends with the answer, up to the end of the turn."""
        prompt = self.prompt_text(messages[:-1], tools)
        whole_messages = self._with_system(messages)
        self._require_written(whole_messages, tools)
        whole = self._render(whole_messages, tools, add_generation_prompt=False)
        if whole.startswith(prompt):
            answer = whole[len(prompt) :]
            end = answer.rfind(self.end_of_turn)
            if end >= 0:
                return prompt, answer[: end + len(self.end_of_turn)]
        # The template writes the answer of a finished conversation differently from the one it asks for (R1 opens
        # <think> only in the prompt): the answer that an engine's prompt calls for is the text itself.
        if messages[-1].tool_calls:
            return prompt, self._call_text(prompt, whole, len(messages))
        content = _with_thoughts(messages[-1]).strip()
        if prompt.rstrip().endswith(THINK_OPEN):
            if THINK_CLOSE in content:
                content = content.removeprefix(THINK_OPEN).lstrip("\n")
            else:  # a plain answer among reasoned ones: it closes the block that the prompt has opened
                content = _CLOSE_EMPTY_BLOCK + content
        return prompt, content + self.end_of_turn

    def _call_text(self, prompt: str, whole: str, turn: int) -> str:
        """Return the text of a turn with calls where the template's prompt opens a think block: behind an empty one.

        Raises:
            ModelError: where the turn begins cannot be told.
        """
        opening = prompt.rstrip()
        head = opening.removesuffix(THINK_OPEN)
        end = whole.rfind(self.end_of_turn)
        if head == opening or not whole.startswith(head) or end < 0:
            raise ModelError("chat_format.call_unplaced", turn=turn)
        return _CLOSE_EMPTY_BLOCK + whole[len(head) : end + len(self.end_of_turn)].lstrip("\n")

    def _require_written(self, messages: Sequence[Message], tools: str) -> None:
        """Check that the template writes everything that a conversation has beside plain questions and answers.

        Raises:
            ModelError: it would leave something out; the message names the turn.
        """
        if tools and "tools" not in self._written:
            raise ModelError("chat_format.no_tools")
        for turn, message in enumerate(messages, start=1):
            if message.tool_calls and "calls" not in self._written:
                raise ModelError("chat_format.no_calls", turn=turn, name=message.tool_calls[0].name)
            if message.role == "tool" and "results" not in self._written:
                raise ModelError("chat_format.no_results", turn=turn)
            if message.role == "system" and message.content.strip() and "system" not in self._written:
                raise ModelError("chat_format.no_system", turn=turn)

    @cached_property
    def _written(self) -> frozenset[str]:
        """Which of system prompts, tools, calls and their results the template writes, found out by writing marks.

        What it refuses with a message of its own counts as written: the message comes when it is asked for.
        """
        ask, call = Message("user", "?"), Message("assistant", "", tool_calls=(ToolCall(_MARK, "{}"),))
        named = Message("assistant", "", tool_calls=(ToolCall("f", "{}"),))
        declared = json.dumps([{"type": "function", "function": {
            "name": _MARK, "description": "", "parameters": {"type": "object", "properties": {}}}}])  # fmt: skip
        trials: dict[str, tuple[Sequence[Message], str]] = {
            "system": ((Message("system", _MARK), ask), ""),
            "tools": ((ask,), declared),
            "calls": ((ask, call), ""),
            "results": ((ask, named, Message("tool", _MARK)), ""),
        }
        return frozenset(name for name, (messages, tools) in trials.items() if self._writes_mark(messages, tools))

    def _writes_mark(self, messages: Sequence[Message], tools: str) -> bool:
        try:
            return _MARK in self._render(messages, tools, add_generation_prompt=False)
        except ModelError:
            return True

    def _with_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not self.system or (messages and messages[0].role == "system"):
            return messages
        return (Message("system", self.system), *messages)

    def _render(self, messages: Sequence[Message], tools: str = "", *, add_generation_prompt: bool) -> str:
        options: dict[str, Any] = {"enable_thinking": False} if self.thinking == "off" else {}
        if tools:
            options["tools"] = json.loads(tools)
        try:
            text = self.tokenizer.apply_chat_template(
                [_as_dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **options,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # A template is a program of its own and may fail in any of these ways.
            roles = " → ".join(message.role for message in messages)
            raise ModelError("chat_format.template_refused", roles=roles, reason=str(error)) from error
        assert isinstance(text, str)
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def joined(turns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Rendered]:
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


def _as_dict(message: Message) -> dict[str, Any]:
    """Return a message as templates read it."""
    made: dict[str, Any] = {"role": message.role, "content": _with_thoughts(message)}
    if message.tool_calls:
        made["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            for call in message.tool_calls
        ]
    return made


def _with_thoughts(message: Message) -> str:
    """Return what a message says behind what was thought before, in the form that Qwen3 and the R1 distils write it."""
    if not message.reasoning:
        return message.content
    return f"{THINK_OPEN}\n{message.reasoning}\n{THINK_CLOSE}\n\n{message.content}"


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
