"""What is wrong with what is said: broken characters, leftovers of web pages and templates, answers that are none.

Each rule looks at one text or one pair of question and answer. What can only be told from the whole file (answers that
end without a full stop where all others have one) is in ``whole``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import regex

from danlu.data.split import normalise

# Characters that stand where another encoding was read: the replacement character, its bytes read as GBK, UTF-8 read as
# Latin-1 or Windows-1252, and a byte order mark read as either.
_MOJIBAKE: Final = regex.compile("\ufffd|锟斤拷|烫烫烫|[ÃÂ][\u0080-\u00bf]|â€[™œ\u009d“”]|ï»¿")
INVISIBLE: Final = regex.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_TAG: Final = regex.compile(
    r"</?(?:div|p|br|span|a|td|tr|th|table|tbody|li|ul|ol|font|strong|em|img|h[1-6]|script|style|center)(?:\s[^<>]*)?/?>",
    regex.I,
)
_ENTITY: Final = regex.compile(r"&(?:nbsp|amp|lt|gt|quot|apos|ldquo|rdquo|mdash|hellip|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
_ABOUT_CODE: Final = regex.compile(
    r"```|`[^`]+`|html|css|xml|javascript|web ?page|tag|markup|标签|网页|代码|前端", regex.I
)
_FENCE: Final = "```"
# Looked for first, because most answers have none of them and a search for all forms is slow.
_TELLING: Final = (
    "model",
    "Model",
    " AI ",
    "AI",
    "artificial",
    "Artificial",
    "模型",
    "助手",
    "OpenAI",
    "openai",
    "截止",
    "cutoff",
)
_TAIL: Final = 40
# How well-known models speak of themselves; a person who writes for a tuned assistant does not.
_BOILERPLATE: Final = regex.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b"
    r"|\bas a (?:large )?language model\b"
    r"|\bi'?m (?:just )?an? (?:ai|artificial intelligence) (?:language )?model\b"
    r"|\bmy (?:knowledge|training data) (?:cutoff|only goes up to|was last updated)\b|\btrained by openai\b"
    r"|作为(?:一个|一名|一款)?(?:人工智能|AI|大)(?:语言)?(?:模型|助手)|作为(?:一个|一名|一款)语言模型"
    r"|由OpenAI(?:开发|训练)|我的知识截止",
    regex.I,
)
# Control tokens of the families that are trained: in a text they would be read as what they stand for.
_SPECIAL: Final = regex.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|begin_of_text|eot_id|start_header_id|end_header_id)\|>"
    r"|<\|(?:user|assistant|system)\|>|<[｜|](?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)[｜|]>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>"
)
_END: Final = regex.compile(r"[.!?。！？…;；:：)）\]】}」』”\"'’`|>*~_％%$]\s*$|\p{So}\s*$|\d\s*$")
_DANGLING: Final = regex.compile(
    r"(?:[,，、(（\[【“‘]|\b(?:and|or|the|a|an|of|to|in|with|for|but|because)|和|与|或|以及|因为|但是|的)\s*$", regex.I
)
_SCRIPTS: Final = {
    name: regex.compile(pattern)
    for name, pattern in (
        ("han", r"\p{Han}"),
        ("latin", r"\p{Latin}"),
        ("kana", r"[\p{Hiragana}\p{Katakana}]"),
        ("hangul", r"\p{Hangul}"),
        ("cyrillic", r"\p{Cyrillic}"),
        ("arabic", r"\p{Arabic}"),
    )
}
# Says that the assistant does not know, will not say, or sends people elsewhere.
DECLINES: Final = regex.compile(
    r"(?:do(?:n'?t| not)|can(?:'t|not| not)|unable to|not able to) (?:know|have|tell|say|answer|help|find|provide)"
    r"|not sure|no information|不知道|不清楚|不了解|不太清楚|无法(?:回答|提供|告诉|确定)"
    r"|没有(?:相关|这方面的?)(?:信息|资料)|不能(?:回答|透露|提供|告诉)|抱歉|对不起",
    regex.I,
)


def broken_in(text: str) -> Iterator[tuple[str, str]]:
    """Go through what is broken in any text: pairs of the kind and what was found."""
    found = None if text.isascii() else _MOJIBAKE.search(text)
    if found:
        yield "checks.mojibake", found.group()
    elif (mended := unscrambled(text)) is not None:
        yield "checks.mojibake", mended[:20]
    hidden = INVISIBLE.search(text)
    if hidden:
        yield "checks.invisible", f"U+{ord(hidden.group()):04X}"
    special = _SPECIAL.search(text) if "<" in text or "[" in text else None
    if special:
        yield "checks.special_token", special.group()


def unscrambled(text: str) -> str | None:
    """Return what a text was before its UTF-8 was read as GBK or Windows-1252; None where it was not.

    Only what comes out whole counts: every character of the text must be part of it.
    """
    if text.isascii() or len(text) < 4:
        return None
    for wrong in ("gb18030", "cp1252"):
        try:
            mended = text.encode(wrong).decode("utf-8")
        except UnicodeError:
            continue
        if mended != text and not mended.isascii():
            return mended
    return None


def leftovers_in(text: str, question: str) -> Iterator[tuple[str, str]]:
    """Go through leftovers of web pages in an answer; rows about code and pages may speak of them."""
    if "<" not in text and "&" not in text:
        return
    if _ABOUT_CODE.search(text) or _ABOUT_CODE.search(question):
        return
    found = _TAG.search(text) or _ENTITY.search(text)
    if found:
        yield "checks.html", found.group()[:30]


def wrong_with_answer(answer: str, question: str) -> Iterator[tuple[str, str]]:
    """Go through what is wrong with an answer by itself: pairs of the kind and what was found."""
    yield from leftovers_in(answer, question)
    found = _BOILERPLATE.search(answer) if any(word in answer for word in _TELLING) else None
    if found and not _BOILERPLATE.search(question):
        yield "checks.boilerplate", found.group()
    if answer.count(_FENCE) % 2:
        yield "checks.open_fence", _FENCE
    if len(answer) > 2 * len(question) + 20:  # says more than the question, whatever it begins with
        return
    said, asked = normalise(answer), normalise(question)
    if len(asked) > 8 and (said == asked or (said.startswith(asked) and len(said) < 1.2 * len(asked))):
        yield "checks.repeats_question", answer[:30]


def ends_well(answer: str) -> bool:
    """Say whether an answer ends as a finished text does: with a full stop, a bracket, a number or a sign."""
    return bool(_END.search(answer[-_TAIL:]))


def breaks_off(answer: str) -> bool:
    """Say whether an answer ends with a comma, an opening bracket, or a word that needs another one behind it."""
    return bool(_DANGLING.search(answer[-_TAIL:]))


def script_of(text: str) -> str | None:
    """Return the script that most letters of a text are in; None where it has too few to tell."""
    sample = text[:200]
    if sample.isascii():
        return "latin" if sum(map(str.isalpha, sample)) >= 12 else None
    counts = {name: len(pattern.findall(sample)) for name, pattern in _SCRIPTS.items()}
    if counts["kana"]:
        return "kana"
    # A Chinese character says about as much as three letters.
    counts["han"] *= 3
    name = max(counts, key=lambda key: counts[key])
    return name if counts[name] >= 12 and counts[name] > 0.7 * sum(counts.values()) else None
