"""What is worth knowing of a conversation as its template writes it, for the person who looks at it.

Found out by rendering, not by the name of the model. What a template loses is refused
(``chat_template``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from danlu.errors import ModelError
from danlu.i18n import t
from danlu.models.chat_format import THINK_CLOSE, ChatFormat
from danlu.models.chat_template import THINK_OPEN
from danlu.models.messages import Message

_MARK = "xDanlu0x"


@dataclass(frozen=True)
class TemplateNote:
    """A thing to know.

    Attributes:
        key: catalogue key.
        params: values of its placeholders.
    """

    key: str
    params: dict[str, str | int] = field(default_factory=dict)

    def text(self) -> str:
        """Return it as a sentence."""
        return t(self.key, **self.params)


def notes_on(chat_format: ChatFormat, messages: Sequence[Message], learn: Sequence[bool]) -> list[TemplateNote]:
    """Return what the template does to a conversation that its reader may not expect.

    Args:
        chat_format: how it is written.
        messages: what was said, without the system prompt of the format.
        learn: for each message whether it is learned.
    """
    notes: list[TemplateNote] = []
    if chat_format.given is not None:
        notes.append(TemplateNote("templates.note_given", {"name": chat_format.given, "end": chat_format.end_of_turn}))
    system = chat_format.system or (messages and messages[0].role == "system")
    default = "" if system else default_system(chat_format)
    if default:
        notes.append(TemplateNote("templates.note_system", {"text": default}))
    answers = [message for message, wanted in zip(messages, learn, strict=True) if wanted]
    if any(message.content != message.content.strip() for message in answers) and trims(chat_format):
        notes.append(TemplateNote("templates.note_trims"))
    typed = chat_format.control.written_in(messages)
    if typed:
        key = "templates.note_marks" if chat_format.control.separable else "templates.note_marks_read"
        notes.append(TemplateNote(key, {"marks": " ".join(typed)}))
    thoughts = [message for message in answers if message.reasoning or THINK_CLOSE in message.content]
    if thoughts and chat_format.thinking == "off":
        notes.append(TemplateNote("templates.note_thoughts_left_out"))
    elif thoughts and not chat_format.can_think:
        notes.append(TemplateNote("templates.note_thoughts_new", {"mark": THINK_OPEN}))
    return notes


def default_system(chat_format: ChatFormat) -> str:
    """Return what the template says of the model where a conversation has no system prompt; empty for nothing."""
    bare = chat_format.with_system("")
    try:
        without = bare.prompt_text((Message("user", _MARK),))
        opening, closing = bare.prompt_text((Message("system", _MARK * 2), Message("user", _MARK))).split(_MARK * 2)
    except (ModelError, ValueError):  # it refuses system prompts, or writes none, or several times
        return ""
    if not (without.startswith(opening) and without.endswith(closing)) or len(without) < len(opening) + len(closing):
        return ""
    return without.removeprefix(opening).removesuffix(closing).strip()


def trims(chat_format: ChatFormat) -> bool:
    """Say whether the template takes white space away at the ends of an answer."""
    said = f" {_MARK} "
    text = chat_format.template.render((Message("user", "?"), Message("assistant", said)), ask=False)
    return said not in text
