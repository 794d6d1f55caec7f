"""Documents become blocks and passages of which nothing is lost; PDF and Word files are written by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.making.papers import papers_under, read_paper
from danlu.data.making.passages import Block, passages_of, size_of
from danlu.errors import DataError

TABLE = "| tea | yuan |\n| --- | ---- |\n| oolong | 12 |"
CODE = '```python\n# no heading\n\nprint("tea")\n```'
MARKDOWN = f"""# Teahouse

We pour tea.
Every day.

## Prices

{TABLE}

{CODE}

## Nothing here

# Way

By the bridge.
"""


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab. ,!?\n茶。，；x", min_size=1, max_size=400).filter(str.strip),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(10, 120),
)
def test_of_a_document_nothing_is_lost_and_no_passage_is_longer_than_asked(parts, most):
    blocks = [
        Block(" ".join(text.split()) if level else text.strip(), level, whole=whole) for text, level, whole in parts
    ]
    found = list(passages_of("a", blocks, most))
    assert [passage.number for passage in found] == list(range(1, len(found) + 1))
    bodies = squeezed("".join(passage.text for passage in found if passage.text))
    titles = [block.text for block in blocks if block.heading]
    assert all(size_of(passage.text) <= most or passage.text in titles for passage in found)
    said = {title for passage in found for title in (*passage.headings, passage.text)}
    assert set(titles) <= said
    assert [squeezed(block.text) for block in blocks if not block.heading and squeezed(block.text) not in bodies] == []


def test_passages_stand_under_their_headings_and_begin_anew_with_each(tmp_path):
    path = tmp_path / "tea.md"
    path.write_text(MARKDOWN, encoding="utf-8")
    found = list(passages_of("tea.md", read_paper(path).blocks, 400))
    assert [(passage.headings, passage.text) for passage in found] == [
        (("Teahouse",), "We pour tea.\nEvery day."),
        (("Teahouse", "Prices"), f"{TABLE}\n\n{CODE}"),
        (("Teahouse",), "Nothing here"),
        (("Way",), "By the bridge."),
    ]


def test_a_table_is_cut_only_where_it_is_longer_than_a_passage_and_then_between_its_rows():
    table = "\n".join(f"| tea number {n} | {n} yuan |" for n in range(30))
    short, *others = passages_of("a", [Block("Prices."), Block(table, whole=True)], 60)
    assert short.text == "Prices."
    assert "\n".join(passage.text for passage in others) == table
    kept = list(passages_of("a", [Block("Prices. " * 40), Block(table, whole=True)], 240))
    assert kept[-1].text == table


def test_sentences_are_not_cut_and_chinese_is_not_glued_with_spaces():
    english = [f"Sentence {n} is about tea." for n in range(20)]
    parts = [passage.text for passage in passages_of("a", [Block(" ".join(english))], 40)]
    assert len(parts) > 3
    assert all(part.endswith("tea.") for part in parts)
    chinese = "".join(f"第{n}句说的是茶。" for n in range(30))
    parts = [passage.text for passage in passages_of("a", [Block(chinese)], 40)]
    assert "".join(parts) == chinese
    assert all(part.endswith("。") for part in parts)


def pdf(path: Path, pages: list[list[str]]) -> Path:
    """Write a PDF by hand: lines of Latin text, page after page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    numbers = []
    for lines in pages:
        shown = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        stream = f"BT /F1 12 Tf 72 760 Td {shown} ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        numbers.append(len(objects))
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(numbers)} >>"
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    path.write_bytes(out.encode("latin-1"))
    return path


def test_a_pdf_is_read_without_running_titles_and_with_its_words_joined(tmp_path):
    body = [
        "The teahouse stands by the old stone bridge of Suzhou and has been run-",
        "ning since the year of the great flood, as the neighbours will tell you",
        "at length.",
        "Oolong is poured twice.",
    ]
    words = ["one", "two", "three", "four"]
    pages = [
        ["The Teahouse Book", f"Of day {word} it is said that", *body, f"{word} ends here.", f"Page {number}"]
        for number, word in enumerate(words, start=1)
    ]
    paper = read_paper(pdf(tmp_path / "a.pdf", [*pages, []]))
    assert (paper.pages, paper.empty_pages, paper.repeated) == (5, 1, 8)
    text = "\n".join(block.text for block in paper.blocks)
    assert "Teahouse Book" not in text
    assert "Page" not in text
    assert "has been running since the year" in text
    assert "at length." in text
    assert [block.page for block in paper.blocks][:1] == [1]
    assert {block.page for block in paper.blocks} == {1, 2, 3, 4}


def test_a_word_document_keeps_headings_lists_and_tables_in_order(tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("茶馆", 1)
    document.add_paragraph("We pour tea.")
    document.add_paragraph("oolong", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("tea", "yuan"), ("oolong", "12|13")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("After the table.")
    document.save(str(tmp_path / "a.docx"))
    blocks = read_paper(tmp_path / "a.docx").blocks
    assert [(block.heading, block.text) for block in blocks] == [
        (1, "茶馆"),
        (0, "We pour tea."),
        (0, "- oolong"),
        (0, "| tea | yuan |\n| --- | --- |\n| oolong | 12\\|13 |"),
        (0, "After the table."),
    ]


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.pdf", b"%PDF-1.4 and then nothing", "making.damaged_document"),
        ("a.docx", b"PK nothing", "making.damaged_document"),
        ("a.txt", b"", "data.empty_file"),
        ("a.odt", b"x", "making.unknown_document"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(tmp_path, name, content, key):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_paper(papers_under([tmp_path / name])[0])
    assert caught.value.key == key
    assert caught.value.message("zh") != caught.value.message("en")


def test_a_pdf_of_pictures_is_refused_and_folders_are_gone_through(tmp_path):
    with pytest.raises(DataError, match="may be pictures"):
        read_paper(pdf(tmp_path / "a.pdf", [[], []]))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.txt").write_text("x", encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.txt").write_text("tea", encoding="utf-8")
    assert [path.name for path in papers_under([tmp_path, tmp_path / "a.pdf"])] == ["a.pdf", "c.txt"]
    with pytest.raises(DataError, match="no documents"):
        papers_under([_empty(tmp_path)])
    with pytest.raises(DataError, match="nothing"):
        papers_under([tmp_path / "nothing.md"])


def _empty(folder: Path) -> Path:
    made = folder / "empty"
    made.mkdir()
    return made
