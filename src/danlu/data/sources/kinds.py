"""Which kind a file is: by its first bytes where they tell, then by the end of its name, then by its first characters.

A text file stays one document, whatever it looks like; ``looks_like`` says what it seems to be in truth.
"""

from __future__ import annotations

import codecs
import json
import zipfile
from typing import Final

from danlu.data.sources.base import Kind, Member
from danlu.data.sources.encodings import opened
from danlu.data.sources.tables import seems_table

TEXT_SUFFIXES: Final = frozenset({".txt", ".text", ".md", ".markdown"})
_SUFFIXES: Final[dict[str, Kind]] = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".csv": "csv", ".tsv": "csv", ".tab": "csv",
    ".xlsx": "sheet", ".xlsm": "sheet", ".xlsb": "sheet", ".xls": "sheet", ".ods": "sheet",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".zip": "zip", ".gz": "gzip",
    **dict.fromkeys(sorted(TEXT_SUFFIXES), "text"),
}  # fmt: skip
# What Danlu reads itself, no plug-in is asked about.
OWN_SUFFIXES: Final = frozenset(_SUFFIXES)
_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"FEA1", "arrow"), (b"\xff\xff\xff\xff", "arrow"),
    (b"\x1f\x8b", "gzip"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "sheet"),
)  # fmt: skip
_BINARY: Final = frozenset({"sheet", "parquet", "arrow", "zip", "gzip"})
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_HEAD: Final = 64
_SAMPLE: Final = 16_384


def by_name(member: Member) -> Kind | None:
    """Return the kind that the end of a name stands for; None where it stands for none."""
    return _SUFFIXES.get(member.suffix)


def kind_by_content(member: Member) -> Kind | None:
    """Return the kind that the first bytes of a file tell for sure; None where it may be any text.

    Raises:
        DataError: missing, a folder, or not readable.
    """
    with opened(member) as file:
        head = file.read(_HEAD)
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if found is None and head.startswith(_ZIP):
        return _kind_of_zip(member)
    return found


def told(member: Member) -> tuple[Kind | None, bool]:
    """Return the kind of a file, and whether its content is of another kind than its name says.

    Returns:
        None for a kind that neither name nor content tell: a file of a plug-in, or of nobody.

    Raises:
        DataError: missing, a folder, or not readable.
    """
    named, content = by_name(member), kind_by_content(member)
    if content is not None:
        return content, named is not None and named != content and {named, content} != {"parquet", "arrow"}
    if named in {"sheet", "gzip", "zip", "parquet", "arrow"}:
        # Not what it is called; "a.xls" that is a table of tabs is written by many web sites.
        text = _kind_of_text(member) if named == "sheet" else None
        return (text, True) if text is not None else (named, False)
    if named == "csv":
        return ("json", True) if _kind_of_text(member) == "json" else ("csv", False)
    if named is not None:
        return named, False
    return _kind_of_text(member), False


def looks_like(member: Member, encoding: str) -> Kind | None:
    """Return what a text file seems to be in truth: ``jsonl`` or ``csv``; None where it seems to be a text.

    Three lines of objects are no accident; a table is believed where its first lines have the same cells. A Markdown
    table begins with a bar and is none of these.

    Raises:
        DataError: missing, a folder, or not readable.
    """
    text, complete = _beginning(member, encoding)
    lines = [line for line in text.splitlines() if line.strip()]
    if not complete and len(lines) > 1:
        lines = lines[:-1]
    if lines and all(_is_object(line) for line in lines[:3]):
        return "jsonl"
    if text.lstrip().startswith("|") or len(lines) < 3:
        return None
    return "csv" if seems_table(text, complete=complete) and _short(lines) else None


def _short(lines: list[str]) -> bool:
    """Say whether a first line may be a header: sentences with commas may happen to have as many in each line."""
    return not lines[0].rstrip().endswith((".", "。", "!", "！", "?", "？", ",", "，", ";", "；"))


def _kind_of_text(member: Member) -> Kind | None:
    text, complete = _beginning(member, _encoding_of_head(member))
    start = text.lstrip()
    if start.startswith(("[{", "{")) or (start.startswith("[") and start[1:].lstrip().startswith(("{", "]"))):
        return "json"
    return "csv" if "\0" not in text and seems_table(text, complete=complete) else None


def _encoding_of_head(member: Member) -> str:
    """Return an encoding that is enough to see braces and commas in; the true one is told from all of the file."""
    with opened(member) as file:
        head = file.read(4)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be" if head[:1] == b"\0" else "utf-8-sig"


def _beginning(member: Member, encoding: str) -> tuple[str, bool]:
    with opened(member) as file:
        head = file.read(_SAMPLE + 1)
    complete = len(head) <= _SAMPLE
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head[:_SAMPLE], final=complete)
    return text, complete


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _kind_of_zip(member: Member) -> Kind:
    """Tell a spreadsheet, which is a zip archive too, from an archive of files; a damaged one is what its name says."""
    try:
        with zipfile.ZipFile(member.path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return "sheet" if by_name(member) == "sheet" else "zip"
    office = any(name.startswith("xl/") for name in names) and "[Content_Types].xml" in names
    return "sheet" if office or {"mimetype", "content.xml"} <= names else "zip"
