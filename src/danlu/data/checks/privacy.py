"""What may not leave the house: addresses, numbers of people and cards, keys and passwords in texts.

Check digits and forms are tested, so that order numbers and the like are not taken for them. What is found is shown
masked, never whole.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import regex

_EMAIL: Final = regex.compile(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+[a-zA-Z]{2,}(?![\w-])")
# Addresses that are meant for nobody (RFC 2606).
_NOBODY: Final = regex.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)$", regex.I)
# A Chinese mobile number, a Chinese landline with its area code set off, or an international number with its plus sign
# (ITU-T E.164). Service numbers (400, 95…) belong to nobody.
_PHONE: Final = regex.compile(
    r"(?<![\d.-])(?:(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}|[(（]?0(?:10|2\d|[3-9]\d{2})[)）\- ]{1,2}[2-8]\d{6,7}"
    r"|\+[1-9]\d{0,2}(?:[ -]?\d){7,12})(?![\d.-])"
)
_ID: Final = regex.compile(r"(?<!\d)[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![\dXx])")
_CARD: Final = regex.compile(r"(?<![\d.-])(?:\d[ -]?){13,18}\d(?![\d.-])")
_IBAN: Final = regex.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
# A password within an address: https://name:password@host.
_IN_ADDRESS: Final = regex.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:(?P<secret>[^\s/:@]{3,})@[\w.-]+", regex.I)
_KEY: Final = regex.compile(
    r"\b(?:sk-(?:proj-)?[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|xox[baprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[A-Za-z0-9_-]{35}|LTAI[A-Za-z0-9]{12,20}|hf_[A-Za-z0-9]{30,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
_PASSWORD: Final = regex.compile(
    r"(?:\b(?:password|passwd|pwd)|密码|口令)\s*(?:(?:is|是|为)\s*[:：=]?|[:：=])\s*[\"'“]?"
    r"(?P<secret>(?=[^\s\"'”,，。;；]*[\d\W_])[!-~]{6,40})",
    regex.I,
)
# Looked for first: a text without them holds none of the rest.
_DIGITS: Final = regex.compile(r"\d[ -]?\d[ -]?\d[ -]?\d[ -]?\d[ -]?\d[ -]?\d")
_KEY_MARKS: Final = ("sk-", "AKIA", "gh", "xox", "AIza", "LTAI", "hf_", "eyJ", "PRIVATE KEY")
_PASSWORD_WORD: Final = regex.compile("passw|pwd|密码|口令", regex.I)
# Weights and check characters of GB 11643-1999 (ISO 7064, MOD 11-2).
_ID_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS: Final = "10X98765432"


@dataclass(frozen=True)
class Private:
    """Something private in a text.

    Attributes:
        code: what it is: ``checks.email``, ``checks.phone`` …
        start: where it begins.
        end: where it ends.
        masked: it with nearly all of it covered.
    """

    code: str
    start: int
    end: int
    masked: str


def private_in(text: str) -> Iterator[Private]:
    """Go through what is private in a text, in no particular order; nothing is found twice at the same place."""
    taken: list[tuple[int, int]] = []
    numbers = _DIGITS.search(text) is not None
    for code, pattern, sound, possible in (
        ("checks.secret", _KEY, None, any(mark in text for mark in _KEY_MARKS)),
        ("checks.password", _IN_ADDRESS, None, "://" in text and "@" in text),
        ("checks.email", _EMAIL, _is_address, "@" in text),
        ("checks.id_number", _ID, _is_id, numbers),
        ("checks.card", _CARD, _is_card, numbers),
        ("checks.iban", _IBAN, _is_iban, numbers),
        ("checks.phone", _PHONE, None, numbers),
        ("checks.password", _PASSWORD, None, _PASSWORD_WORD.search(text) is not None),
    ):
        if not possible:
            continue
        for found in pattern.finditer(text):
            start, end = found.span("secret") if code == "checks.password" else found.span()
            if any(start < later and end > earlier for earlier, later in taken):
                continue
            if sound is None or sound(text[start:end]):
                taken.append((start, end))
                yield Private(code, start, end, mask(text[start:end]))


def mask(text: str) -> str:
    """Return a private text with all but its first two and last two characters covered; a short one covered whole."""
    if len(text) < 8:
        return "*" * len(text)
    return text[:2] + "*" * min(len(text) - 4, 8) + text[-2:]


def _is_address(text: str) -> bool:
    return not _NOBODY.search(text)


def _is_id(text: str) -> bool:
    """Check the date and the check character of a Chinese resident's number."""
    try:
        born = datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _ID_WEIGHTS, strict=True))
    return born.year >= 1900 and _ID_CHECKS[total % 11] == text[17].upper()


def _is_iban(text: str) -> bool:
    """Check the check digits of an international bank account number (ISO 13616: the remainder by 97 is 1)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Check a card number: a known beginning, and Luhn's check digit (ISO/IEC 7812-1).

    Of 14 digits are Diners' (30, 36, 38), of 15 American Express's (34, 37).
    """
    digits = [int(char) for char in text if char.isdigit()]
    begins = (digits[0], digits[1])
    known = {14: begins in {(3, 0), (3, 6), (3, 8)}, 15: begins in {(3, 4), (3, 7)}}
    usual = len(digits) in {16, 18, 19} and digits[0] in {3, 4, 5, 6, 9}
    if not known.get(len(digits), usual) or len(set(digits)) < 4:
        return False
    doubled = [digit if at % 2 == 0 else sum(divmod(2 * digit, 10)) for at, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
