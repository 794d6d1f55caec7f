"""Which encoding a text file is in, and its text piece by piece.

UTF-8 is believed where it fits, UTF-16 and UTF-32 where a byte order mark or the places of zero bytes say so, and
GB18030 (GBK is a part of it) where what comes out is Chinese as people write it. Anything else is refused with a
guess. The same bytes are always told alike: nothing is learned and nothing depends on the machine's language.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from danlu.data.sources.base import Member
from danlu.data.sources.scripts import is_chinese, likely_encoding
from danlu.errors import DataError
from danlu.i18n import t

_BLOCK: Final = 1 << 20
_HEAD: Final = 4096
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ORDERED: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# A third of the units of plain English are none of these; of a text read with its bytes swapped nearly all are.
_PLAIN: Final = frozenset(' \t\r\n"{}[]:,;.-0123456789etaoinsETAOINS')
# Gujarati and Malayalam characters have the bytes of \n and \r above: far more often these are line ends of a text in
# which zeros stand for another reason.
_LINE_ENDS: Final = re.compile("[\u0a00-\u0aff\u0d00-\u0dff]")
_SAMPLE: Final = 200_000
# The first byte is beyond ASCII, the second may be anything.
_PAIRS: Final = re.compile(rb"(?:[\x80-\xff][\x00-\xff])+", re.DOTALL)
_BINARY: Final = (b"PK", b"\x1f\x8b", b"%PDF", b"\xd0\xcf\x11\xe0", b"\x89PNG", b"\xff\xd8", b"PAR1", b"ARROW1")


def encoding_of(member: Member) -> str:
    """Return the name of the codec that a file is to be read with; reads the file once, block by block.

    Raises:
        DataError: missing, a folder, not readable, empty, or in an encoding that is not read; the message names the
            line and what it looks like.
    """
    with opened(member) as file:
        head = file.read(_HEAD)
        if not head:
            raise DataError("data.empty_file", member.shown)
        marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        told = marked or _by_zeros(head)
        file.seek(0)
        bad = _first_bad(file, told or "utf-8")
        if bad is None:
            return told or "utf-8"
        line, byte, valid_before = bad
        if told is not None:
            likely = t("files.broken_encoding", encoding=told.upper(), byte=byte)
        elif _is_binary(head):
            likely = t("files.binary")
        else:
            sample = _beyond_ascii(file)
            file.seek(0)
            # Before "damaged UTF-8": the first characters of a GBK file may happen to be right in UTF-8 too.
            if _first_bad(file, "gb18030") is None and is_chinese(sample):
                return "gb18030"
            if valid_before:
                likely = t("files.broken_encoding", encoding="UTF-8", byte=byte)
            else:
                likely = likely_encoding(sample) or t("data.encoding_other")
    raise DataError("data.not_utf8", member.at(line), likely=likely)


def texts(member: Member, encoding: str) -> Iterator[str]:
    """Go through the text of a file in pieces of about a megabyte, without a byte order mark.

    Raises:
        DataError: it cannot be read, or was changed since its encoding was told.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    member.position.done = 0
    with opened(member) as file:
        try:
            while block := file.read(_BLOCK):
                member.position.done += len(block)
                yield decoder.decode(block)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError("data.not_utf8", member.shown, likely=str(error.encoding)) from None
        except OSError as error:
            raise DataError("data.unreadable", member.shown, reason=error.strerror or str(error)) from error


def opened(member: Member) -> BinaryIO:
    """Open a file.

    Raises:
        DataError: it is missing, a folder, or not readable.
    """
    if member.path.is_dir():
        raise DataError("data.is_folder", member.shown)
    try:
        return member.path.open("rb")
    except FileNotFoundError:
        raise DataError("data.missing_file", member.shown) from None
    except OSError as error:
        raise DataError("data.unreadable", member.shown, reason=error.strerror or str(error)) from error


def _by_zeros(head: bytes) -> str | None:
    """Return the UTF-16 that a file without a mark is in; None where it is none.

    The high byte of plain letters, digits and punctuation is zero, and every table or JSON file has some of them. Both
    orders are tried: the right one has no zero characters and no controls, and far more of the plain characters.
    """
    if b"\0" not in head:
        return None
    plain: dict[str, int] = {}
    for name in ("utf-16-le", "utf-16-be"):
        text = head[: len(head) // 2 * 2].decode(name, errors="replace")
        if "\0" in text or "\ufffd" in text[:-1] or any(char < " " and char not in "\t\r\n" for char in text):
            continue
        if _LINE_ENDS.search(text):
            continue
        plain[name] = sum(char in _PLAIN for char in text)
    if not plain:
        return None
    best = max(plain, key=lambda name: plain[name])
    other = min(plain.values()) if len(plain) == 2 else 0
    return best if plain[best] >= 2 and plain[best] > 4 * other else None


def _first_bad(file: BinaryIO, encoding: str) -> tuple[int, int, bool] | None:
    """Return where decoding fails; None where it does not.

    Returns:
        Line and byte (from 1), and whether characters beyond ASCII were right before that place.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    mark = file.read(4)
    file.seek(0)
    ordered = next((name for start, name in _ORDERED if mark.startswith(start)), encoding)
    line, read, beyond = 1, 0, 0
    while True:
        block = file.read(_BLOCK)
        read += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(ordered, errors="ignore")
            beyond += sum(char > "\x7f" for char in before)
            # The decoder complains about this block and what it held back of the one before.
            return line + before.count("\n"), read - len(error.object) + error.start + 1, beyond >= 3
        if not block:
            return None
        line += text.count("\n")
        if beyond < 3 and not text.isascii():
            beyond += sum(char > "\x7f" for char in text)


def _beyond_ascii(file: BinaryIO) -> bytes:
    """Return the characters of a file that are not plain ASCII, in the encodings of East Asia two bytes each."""
    file.seek(0)
    found = bytearray()
    rest = b""
    while len(found) < _SAMPLE and (block := file.read(_BLOCK)):
        block = rest + block
        end = 0
        for pairs in _PAIRS.finditer(block):
            found += pairs[0]
            end = pairs.end()
        rest = block[-1:] if end < len(block) and block[-1] > 0x7F else b""
    return bytes(found[: _SAMPLE // 2 * 2])


def _is_binary(head: bytes) -> bool:
    return head.startswith(_BINARY) or b"\0" in head
