"""What the model is told of a conversation: one branch, and as much of its end as the context holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from danlu.errors import TooLargeError
from danlu.models.messages import Message as Turn
from danlu.serving.registry import Entry
from danlu.store.records import Message


@dataclass(frozen=True)
class Prompt:
    """What goes to the gateway.

    Attributes:
        messages: system prompt (if the assistant has its own), the turns that fit, the question.
        dropped_turns: how many of the oldest turns were left out.
    """

    messages: tuple[Turn, ...]
    dropped_turns: int


def branch_to(messages: Mapping[str, Message], message_id: str) -> list[Message]:
    """Return the messages from the root to ``message_id``, which is included."""
    branch: list[Message] = []
    step: str | None = message_id
    while step is not None:
        message = messages[step]
        branch.append(message)
        step = message.parent_id
    return branch[::-1]


def turns_of(branch: Sequence[Message]) -> list[list[Turn]]:
    """Return a branch as turns, each a question with its answer; the last is the open question alone.

    A question whose answer failed or was stopped before its first word joins the next question, because templates
    insist that question and answer alternate and nothing that a person wrote may get lost.
    """
    turns: list[list[Turn]] = []
    waiting: list[str] = []
    for message in branch:
        if message.role == "user":
            waiting.append(message.content)
        elif message.content.strip():
            turns.append([Turn("user", "\n\n".join(waiting)), Turn("assistant", message.content)])
            waiting = []
    if waiting:
        turns.append([Turn("user", "\n\n".join(waiting))])
    return turns


async def prompt_for(door: Entry, branch: Sequence[Message]) -> Prompt:
    """Choose the turns so that prompt and answer fit into the context, leaving out the oldest whole turns first.

    The longest answer that the assistant may give is kept free, at most half of the context. An engine that renders
    prompts itself (``openai:URL``) cannot be asked how long one becomes; it gets everything.

    Args:
        door: knows the context, the system prompt, and how long a prompt becomes.
        branch: from the root to the question.

    Raises:
        TooLargeError: the question alone is longer than the context.
    """
    turns = turns_of(branch)
    opening = (Turn("system", door.served.system),) if door.served.system is not None else ()
    context = door.served.spec.context
    room = context - min(door.served.defaults.max_tokens, context // 2)

    def without(dropped: int) -> tuple[Turn, ...]:
        return (*opening, *(turn for pair in turns[dropped:] for turn in pair))

    async def fits(dropped: int) -> bool:
        try:
            return len(await door.gateway.prompt_ids(without(dropped))) <= room
        except TooLargeError:
            return False

    if await fits(0):
        return Prompt(without(0), 0)
    last = len(turns) - 1
    low, high = 1, last
    while low < high:
        middle = (low + high) // 2
        if await fits(middle):
            high = middle
        else:
            low = middle + 1
    dropped = min(low, last)
    return Prompt(without(dropped), dropped)
