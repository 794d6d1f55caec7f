"""Tokens as people can read them: text where a token is text, bytes where it is a part of a character."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ESCAPES: Final = {
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\\": "\\\\",
    " ": "␣",
    "\u3000": "\\u3000",
    "\u00a0": "\\xa0",
}
_HALF: Final = "\ufffd"


def readable(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    r"""Return each token on one line: spaces as ``␣``, line breaks as ``\n``, bytes of a character as ``\xe4\xb8``."""
    return [_one(tokenizer, index) for index in ids]


def _one(tokenizer: PreTrainedTokenizerBase, index: int) -> str:
    piece = str(tokenizer.convert_ids_to_tokens(index))
    if index in tokenizer.added_tokens_decoder:
        return _escaped(piece)
    # The decoder of some tokenizers drops a space at the beginning of a text; their pieces show it.
    text = piece.replace("▁", " ") if "▁" in piece else str(tokenizer.decode([index]))
    if _HALF not in text:
        return _escaped(text)
    known = _bytes()
    if all(char in known for char in piece):
        return "".join(f"\\x{known[char]:02x}" for char in piece)
    return _escaped(piece)


def _escaped(text: str) -> str:
    printed = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return "".join(_ESCAPES.get(char, shown) for char, shown in zip(text, printed, strict=True))


@cache
def _bytes() -> dict[str, int]:
    """Return the byte behind each character of a byte-level vocabulary.

    Bytes that print stand for themselves, the others, in order, for the characters from 256 on (Radford et al. 2019,
    the code of GPT-2; Hugging Face's ``ByteLevel`` does the same).
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + at): byte for at, byte in enumerate(others)}
