"""Documents as people have them (Markdown, text, PDF, Word) to blocks: headings, paragraphs, lists, tables, code.

PDF and Word need ``danlu[documents]``. Pictures are not read: pages without text are counted. Not for cutting
(``passages``).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import regex

from danlu.data.making.passages import Block
from danlu.data.rows import read_text
from danlu.errors import DataError

SUFFIXES: Final = (".md", ".markdown", ".txt", ".text", ".pdf", ".docx")
_HEADING: Final = regex.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE: Final = regex.compile(r"^\s*(```+|~~~+)")
_STYLE: Final = regex.compile(r"^(?:Heading|标题)\s*(\d)$", regex.I)
_LIST: Final = regex.compile(r"^List\b|^列表", regex.I)
_WIDE_END: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}，。、；：！？）」』”]$")
_WIDE_START: Final = regex.compile(r"^[\p{Han}\p{Hiragana}\p{Katakana}，。、；：！？（「『“]")
_HYPHEN: Final = regex.compile(r"(?<=\p{Ll})[-\u00ad]$")
_DIGITS: Final = regex.compile(r"\d+")
_SENTENCE_END: Final = regex.compile(r"[.!?。！？:：;；]['\"”’)）]?$")
_LIGATURES: Final = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
# A line at the top or the bottom of so many pages is no part of the text (own rule); of two pages nothing can be told.
_REPEATED: Final = 0.6
_LEAST_PAGES: Final = 3
_EDGE: Final = 2


@dataclass
class Paper:
    """A document in blocks, and what was found out on reading it.

    Attributes:
        blocks: its blocks.
        pages: pages; 0 where there are none.
        empty_pages: pages without text, pictures of text for example.
        repeated: lines left out because they stand at the top or the bottom of most pages.
    """

    blocks: list[Block] = field(default_factory=list)
    pages: int = 0
    empty_pages: int = 0
    repeated: int = 0


def papers_under(paths: Sequence[Path]) -> list[Path]:
    """Return the documents that paths name; of folders all that lie in them, by name.

    Raises:
        DataError: one is not there, is no document that is read, or a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
            inside = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
            if not inside:
                raise DataError("making.no_documents", str(path), kinds=", ".join(SUFFIXES))
            found += inside
        elif not path.is_file():
            raise DataError("data.missing_file", str(path))
        elif path.suffix.lower() not in SUFFIXES:
            raise DataError("making.unknown_document", str(path), kinds=", ".join(SUFFIXES))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_paper(path: Path) -> Paper:
    """Read a document.

    Raises:
        DataError: it is damaged, holds no text, is locked, or a package for its kind is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return _pdf(path)
    if suffix == ".docx":
        return _docx(path)
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return Paper(list(_markdown(text) if suffix in {".md", ".markdown"} else _paragraphs(text.split("\n"))))


def _markdown(text: str) -> Iterator[Block]:
    gathered: list[str] = []
    fence = ""
    table = False

    def flush() -> Iterator[Block]:
        nonlocal table
        body = "\n".join(gathered).strip("\n")
        if body.strip():
            yield Block(body, whole=table or bool(_FENCE.match(body)))
        gathered.clear()
        table = False

    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            gathered.append(line)
            if mark and mark[1].startswith(fence):
                yield from flush()
                fence = ""
            continue
        if mark:
            yield from flush()
            gathered.append(line)
            fence = mark[1]
            continue
        heading = _HEADING.match(line)
        if heading:
            yield from flush()
            yield Block(heading[2], heading=len(heading[1]))
            continue
        is_row = line.lstrip().startswith("|")
        if is_row != table or not line.strip():
            yield from flush()
            table = is_row
        if line.strip():
            gathered.append(line)
    yield from flush()


def _paragraphs(lines: Sequence[str], page: int | None = None) -> Iterator[Block]:
    """Put lines together that belong to one paragraph: an empty line ends it."""
    gathered: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            gathered.append(line.rstrip())
        elif gathered:
            yield Block("\n".join(gathered), page=page)
            gathered = []


def _pdf(path: Path) -> Paper:
    _require("pypdf", path)
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DataError("making.locked_document", str(path))
        pages = [_clean(page.extract_text()).split("\n") for page in reader.pages]
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        # pypdf lets errors of its parser through on damaged files.
        raise DataError("making.damaged_document", str(path), reason=str(error) or type(error).__name__) from None
    paper = Paper(pages=len(pages), empty_pages=sum(not "".join(lines).strip() for lines in pages))
    if paper.empty_pages == len(pages):
        raise DataError("making.no_text", str(path), pages=len(pages))
    repeated = _repeated_lines(pages)
    for number, lines in enumerate(pages, start=1):
        kept = [line for at, line in enumerate(lines) if not (_is_edge(at, lines) and _shape(line) in repeated)]
        paper.repeated += len(lines) - len(kept)
        paper.blocks += _joined_blocks(kept, number)
    return paper


def _clean(text: str) -> str:
    for ligature, letters in _LIGATURES.items():
        text = text.replace(ligature, letters)
    return text.replace("\x00", "").replace("\u00a0", " ")


def _repeated_lines(pages: Sequence[Sequence[str]]) -> set[str]:
    """Return the shapes of lines that stand at the top or the bottom of most pages."""
    written = [lines for lines in pages if "".join(lines).strip()]
    if len(written) < _LEAST_PAGES:
        return set()
    shapes = Counter(
        shape for lines in written for shape in {_shape(line) for at, line in enumerate(lines) if _is_edge(at, lines)}
    )
    return {shape for shape, count in shapes.items() if shape and count >= _REPEATED * len(written)}


def _is_edge(at: int, lines: Sequence[str]) -> bool:
    return at < _EDGE or at >= len(lines) - _EDGE


def _shape(line: str) -> str:
    """Return what a line is compared by: page numbers differ from page to page."""
    return str(_DIGITS.sub("#", " ".join(line.split())))


def _joined_blocks(lines: Sequence[str], page: int) -> Iterator[Block]:
    """Join the lines of a page to paragraphs: a PDF knows lines only.

    A paragraph ends at an empty line, and behind a line that ends a sentence well before the others end.
    """
    widths = sorted(len(line.strip()) for line in lines if line.strip())
    full = widths[int(len(widths) * 0.8)] if widths else 0
    text = ""
    for line in [*lines, ""]:
        part = line.strip()
        if not part:
            if text:
                yield Block(text, page=page)
            text = ""
            continue
        text = _joined(text, part) if text else part
        if _SENTENCE_END.search(part) and len(part) < 0.75 * full:
            yield Block(text, page=page)
            text = ""


def _joined(text: str, line: str) -> str:
    if _HYPHEN.search(text) and line[:1].islower():
        return str(_HYPHEN.sub("", text)) + line
    if _WIDE_END.search(text) and _WIDE_START.search(line):
        return text + line
    return f"{text} {line}"


def _docx(path: Path) -> Paper:
    _require("docx", path)
    import docx
    from docx.opc.exceptions import PackageNotFoundError
    from docx.table import Table

    try:
        document = docx.Document(str(path))
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise DataError("making.damaged_document", str(path), reason=str(error) or type(error).__name__) from None
    paper = Paper()
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = [[_cell(cell) for cell in row.cells] for row in item.rows]
            if rows:
                lines = ["| " + " | ".join(row) + " |" for row in rows]
                paper.blocks.append(Block("\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]), whole=True))
            continue
        text = item.text.strip()
        style = str(item.style.name) if item.style is not None else ""
        heading = _STYLE.match(style)
        if not text:
            continue
        if heading or style == "Title":
            paper.blocks.append(Block(" ".join(text.split()), heading=int(heading[1]) if heading else 1))
        else:
            paper.blocks.append(Block(f"- {text}" if _LIST.match(style) else text))
    if not paper.blocks:
        raise DataError("making.no_text", str(path), pages=0)
    return paper


def _cell(cell: Any) -> str:
    return " ".join(str(cell.text).split()).replace("|", "\\|")


def _require(package: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise DataError("making.package_missing", str(path), package={"docx": "python-docx"}.get(package, package))
