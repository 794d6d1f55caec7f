"""Which of the older encodings of East Asia a text is in, told by the characters that come out.

Only for texts that are no UTF-8. Many bytes can be decoded in several ways; what people write is one of them: a text
consists to a good part of its language's few most frequent characters, and a wrong decoding does not.
"""

from __future__ import annotations

from typing import Final

# The most frequent characters of written Chinese, in both scripts (the head of every published frequency list), with
# its punctuation. They make up 30 to 50 % of running text.
_CHINESE: Final = frozenset(
    "的一是不了在人有我他这個个上们們来來到时時大地为為子中你说說生国國年着就那和要她出也得里后後自以会會家可下而过過天去能对對小多然"
    "于心学學么麼之都好看起发發当當没沒成只如事把还還用第样樣道想作种種开開手十分问問答什请請吗嗎呢吧啊谁誰"
    "，。？！、：；“”（）《》"
)
# The share of them that a text must have: names of goods and places have about a tenth, other languages read as
# GB18030 at most two hundredths (EUC-KR, EUC-JP, Big5 and Latin-1 texts of the tests).
_ENOUGH: Final = 0.04
# Each: codec, what people call it, and the frequent characters of what is written in it.
_OTHERS: Final = (
    ("big5", "Big5", frozenset("的一是不了在人有我他這個上們來到時大為子中你說生國年著就那和要她出也得，。？！、：；")),
    ("shift_jis", "Shift-JIS", frozenset("のにはをたがでてとしれさいるなもありまこすくよ、。")),
    ("euc_jp", "EUC-JP", frozenset("のにはをたがでてとしれさいるなもありまこすくよ、。")),
    ("euc_kr", "EUC-KR", frozenset("이다는가에을의고하로은지도서기를해한사리나자어니그아")),
)
# GB 2312 puts the 3,755 most frequent characters into the rows of lead bytes B0 to D7, and punctuation into A1 to A3.
_USUAL_LEADS: Final = frozenset({*range(0xA1, 0xA4), *range(0xB0, 0xD8)})
_USUAL: Final = 0.5


def is_chinese(sample: bytes) -> bool:
    """Say whether what GB18030 makes of bytes is Chinese as people write it, and no other encoding makes more sense.

    Args:
        sample: the characters that are not plain ASCII; the last may be cut off.
    """
    share = _share(sample, "gb18030", _CHINESE)
    return share >= _ENOUGH and _usual(sample) >= _USUAL and all(share >= other for _, other in _scores(sample))


def likely_encoding(sample: bytes) -> str | None:
    """Return the name of the encoding that bytes seem to be in; None where none fits.

    Args:
        sample: the characters that are not plain ASCII; the last may be cut off.
    """
    name, share = max(_scores(sample), key=lambda pair: pair[1])
    if share >= _ENOUGH:
        return name
    return "GBK/GB18030" if _decoded(sample, "gb18030") and _usual(sample) >= _USUAL else None


def _scores(sample: bytes) -> list[tuple[str, float]]:
    return [(shown, _share(sample, codec, frequent)) for codec, shown, frequent in _OTHERS]


def _share(sample: bytes, codec: str, frequent: frozenset[str]) -> float:
    """Return the share of frequent characters among those beyond ASCII; 0 where bytes cannot be decoded."""
    beyond = [char for char in _decoded(sample, codec) if char > "\x7f"]
    return sum(char in frequent for char in beyond) / len(beyond) if beyond else 0.0


def _usual(sample: bytes) -> float:
    """Return the share of characters that GB 2312 has in its first level."""
    codes = [char.encode("gb18030") for char in _decoded(sample, "gb18030") if char > "\x7f"]
    usual = sum(len(code) == 2 and code[1] >= 0xA1 and code[0] in _USUAL_LEADS for code in codes)
    return usual / len(codes) if codes else 0.0


def _decoded(sample: bytes, codec: str) -> str:
    """Decode bytes of which the last character may be cut off; an empty text where that is not possible."""
    for cut in range(4):
        try:
            return sample[: len(sample) - cut].decode(codec)
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 4:
                return ""
    return ""
