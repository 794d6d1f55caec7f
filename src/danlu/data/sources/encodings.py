"""Which encoding a text file is in, and its text piece by piece.

UTF-8 is believed where it fits, UTF-16 and UTF-32 where a byte order mark or a pattern of zero bytes says so, and
GB18030 (GBK is a part of it) where what comes out is Chinese as people write it. Anything else is refused with a guess.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, Final

from danlu.data.sources.base import Member
from danlu.errors import DataError
from danlu.i18n import t

_BLOCK: Final = 1 << 20
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# GB 2312 puts the 3,755 most frequent characters into the rows of lead bytes B0 to D7, and punctuation into A1 to A3.
# Of Chinese texts nearly all characters are among them; of other encodings read as GB18030 at most about half.
_USUAL_LEADS: Final = frozenset({*range(0xA1, 0xA4), *range(0xB0, 0xD8)})
_PLAUSIBLE: Final = 0.75
_LOOKED_AT: Final = 20_000


def encoding_of(member: Member) -> str:
    """Return the name of the codec that a file is to be read with; reads the file once, block by block.

    Raises:
        DataError: missing, a folder, not readable, empty, or in an encoding that is not read; the message names the
            line and what it looks like.
    """
    with opened(member) as file:
        head = file.read(4096)
        if not head:
            raise DataError("data.empty_file", member.shown)
        marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        guessed = marked or _by_zeros(head)
        for name in (guessed,) if guessed else ("utf-8", "gb18030"):
            file.seek(0)
            bad = _first_bad_line(file, name)
            if bad is None and (name != "gb18030" or _is_chinese(file)):
                return name
            if name in {"utf-8", guessed}:
                line = bad or 1
    raise DataError("data.not_utf8", member.at(line), likely=_guess(head))


def texts(member: Member, encoding: str) -> Iterator[str]:
    """Go through the text of a file in pieces of about a megabyte, without a byte order mark.

    Raises:
        DataError: it cannot be read, or cannot be decoded after all.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    with opened(member) as file:
        try:
            while block := file.read(_BLOCK):
                yield decoder.decode(block)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError("data.not_utf8", member.shown, likely=str(error.encoding)) from None


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
    """Return the UTF-16 that a file without a mark is in: of mostly ASCII, every other byte is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half >= 4 and odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    if half >= 4 and even > 0.7 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def _first_bad_line(file: BinaryIO, encoding: str) -> int | None:
    """Return the line on which decoding fails; None where it does not."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    while True:
        block = file.read(_BLOCK)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            return line + error.object[: error.start].count(b"\n")
        if not block:
            return None
        line += block.count(b"\n")


def _is_chinese(file: BinaryIO) -> bool:
    """Say whether what GB 18030 makes of a file is Chinese as people write it, by its first characters beyond ASCII."""
    decoder = codecs.getincrementaldecoder("gb18030")()
    file.seek(0)
    beyond: list[bytes] = []
    while len(beyond) < _LOOKED_AT and (block := file.read(_BLOCK)):
        beyond += [char.encode("gb18030") for char in decoder.decode(block) if char > "\x7f"]
    usual = sum(len(code) == 2 and code[1] >= 0xA1 and code[0] in _USUAL_LEADS for code in beyond)
    return bool(beyond) and usual >= _PLAUSIBLE * len(beyond)


def _guess(head: bytes) -> str:
    """Say what bytes that are no UTF-8 look like."""
    if head.startswith((b"PK", b"\x1f\x8b", b"%PDF", b"\xd0\xcf\x11\xe0", b"\x89PNG", b"\xff\xd8")) or b"\0" in head:
        return t("files.binary")
    for name, shown, letters in (
        ("big5", "Big5", "的是不我你有在人了"),
        ("shift_jis", "Shift-JIS", "のにはをたがでて"),
    ):
        text = head.decode(name, errors="ignore")
        if sum(text.count(letter) for letter in letters) * 50 > len(head):
            return shown
    return t("data.encoding_other")
