"""Every kind of file gives the same rows; what is damaged is refused with its place."""

from __future__ import annotations

import codecs
import gzip
import json
import zipfile
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from danlu.data.rows import Row, read_rows, stream_rows
from danlu.data.sources.base import Member
from danlu.data.sources.encodings import encoding_of
from danlu.errors import DataError

ROWS = [
    {"question": "When are you open?", "answer": "From ten,\nevery day."},
    {"question": "你们几点开门？", "answer": '十点，"每天"。'},
    {"question": "a;b|c", "answer": "🙂"},
]
CHINESE = "你是谁？我是竹里茶馆的小熊猫掌柜，每天十点开门。"


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def as_table(rows, delimiter: str = ",", end: str = "\r\n") -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(delimiter.join(map(quoted, line)) + end for line in lines)


def as_lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_sheets(path: Path, sheets: dict[str, list[list[str]]]) -> Path:
    """Write an OpenDocument spreadsheet of nothing but its contents."""
    office = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
    table, text = (office.replace("office:1", f"{name}:1") for name in ("table", "text"))

    def cell(value: str) -> str:
        if value.startswith("#"):
            return f'<table:table-cell office:value-type="float" office:value="{value[1:]}"/>'
        if value.startswith("@"):
            return f'<table:table-cell office:value-type="date" office:date-value="{value[1:]}"/>'
        if value in {"TRUE", "FALSE"}:
            return f'<table:table-cell office:value-type="boolean" office:boolean-value="{value.lower()}"/>'
        return f'<table:table-cell office:value-type="string"><text:p>{value}</text:p></table:table-cell>'

    body = "".join(
        f'<table:table table:name="{name}">'
        + "".join("<table:table-row>" + "".join(map(cell, row)) + "</table:table-row>" for row in rows)
        + "</table:table>"
        for name, rows in sheets.items()
    )
    content = (
        f'<?xml version="1.0" encoding="UTF-8"?><office:document-content xmlns:office="{office}" xmlns:table="{table}" '
        f'xmlns:text="{text}"><office:body><office:spreadsheet>{body}</office:spreadsheet></office:body>'
        "</office:document-content>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", '<?xml version="1.0"?><manifest/>')
        archive.writestr("content.xml", content)
    return path


def write(path: Path, kind: str) -> Path:
    path = path / f"rows.{kind}"
    table = pyarrow.Table.from_pylist(ROWS)
    match kind:
        case "json":
            path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8")
        case "jsonl" | "ndjson":
            path.write_text(as_lines(ROWS), encoding="utf-8")
        case "csv":
            path.write_text(as_table(ROWS), encoding="utf-8", newline="")
        case "tsv":
            path.write_text(as_table(ROWS, "\t", "\n"), encoding="utf-8", newline="")
        case "parquet":
            parquet.write_table(table, path)
        case "feather":
            feather.write_feather(table, str(path))
        case "arrow":
            with ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(as_lines(ROWS).encode()))
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("b/rows.csv", as_table(ROWS[1:]))
                archive.writestr("a.jsonl", as_lines(ROWS[:1]))
                archive.writestr("__MACOSX/._a.jsonl", "x")
    return path


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    message = caught.value.message("en")
    assert path.name in message
    assert "\n" not in message
    assert caught.value.message("zh") != message
    return caught.value


@pytest.mark.parametrize(
    "kind", ["json", "jsonl", "ndjson", "csv", "tsv", "parquet", "feather", "arrow", "jsonl.gz", "zip"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    rows = read_rows(write(tmp_path, kind))
    assert [row.values for row in rows] == ROWS
    assert [row.index for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["parquet", "zip", "json"])
def test_a_name_that_says_nothing_is_no_hindrance(tmp_path, kind):
    path = write(tmp_path, kind).rename(tmp_path / "rows")
    assert [row.values for row in read_rows(path)] == ROWS


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gbk", "gb18030"]
)
def test_every_encoding_gives_the_same_rows(tmp_path, kind, encoding):
    rows = [{"question": "Who? " + CHINESE[:4], "answer": CHINESE}] * 3
    text = {"json": json.dumps(rows, ensure_ascii=False), "jsonl": as_lines(rows), "csv": as_table(rows)}[kind]
    if encoding.startswith("utf-16-"):  # without a mark only mostly plain letters can be told
        rows = [{"question": "Who are you, and when do you open?", "answer": "I am Mochi. At ten."}] * 3
        text = {"json": json.dumps(rows), "jsonl": as_lines(rows), "csv": as_table(rows)}[kind]
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(text.encode(encoding))
    assert [row.values for row in read_rows(path)] == rows


def test_chinese_that_is_written_in_one_encoding_is_not_read_in_another(tmp_path):
    path = tmp_path / "a.txt"
    for text, encoding, name in (
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "gbk", "gb18030"),
        ("plain", "ascii", "utf-8"),
        ("你", "gbk", "gb18030"),
    ):
        path.write_bytes(text.encode(encoding))
        assert encoding_of(Member(path, "a.txt")) == name
    path.write_bytes(("x" * 3_000_000 + CHINESE).encode("gbk"))
    assert encoding_of(Member(path, "a.txt")) == "gb18030", "also where it shows late"
    path.write_bytes(("x\n" * 3_000_000).encode() + b"\xff\xff")
    with pytest.raises(DataError, match="line 3000001"):
        encoding_of(Member(path, "a.txt"))


def test_a_character_that_lies_across_two_blocks_is_whole(tmp_path):
    text = "x" * ((1 << 20) - 1) + CHINESE
    for encoding in ("utf-8", "gbk", "utf-16"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes(text.encode(encoding))
        assert read_rows(path)[0].values == {"text": text}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries({
            "a": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            "b": st.none() | st.booleans() | st.integers() | st.lists(st.text("ä茶\\\"]}", max_size=3), max_size=3),
        }),
        min_size=1,
        max_size=6,
    ),
    indent=st.sampled_from([None, 0, 2]),
    block=st.integers(1, 40),
)  # fmt: skip
def test_json_in_small_pieces_is_the_same_as_json_at_once(tmp_path, rows, indent, block):
    path = tmp_path / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("danlu.data.sources.encodings._BLOCK", block)
        patch.setattr("danlu.data.sources.jsons._REFILL", 1)
        path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert [row.values for row in read_rows(path)] == rows
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert [row.values for row in read_rows(path)] == rows


def test_rows_come_before_the_file_is_at_its_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" + json.dumps({"a": "b"}) + ",\n" + "x" * 5_000_000, encoding="utf-8")
    rows = stream_rows(path)
    assert next(rows) == Row(1, 1, {"a": "b"})
    with pytest.raises(DataError, match="line 2"):
        next(rows)


def test_a_list_under_one_key_is_read_with_its_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{\n "version": [1, {"x": "]"}],\n "data": [\n  {"a": "1"},\n  {"a": "2"}\n ],\n "end": 0}', encoding="utf-8"
    )
    assert read_rows(path) == [Row(1, 4, {"a": "1"}), Row(2, 5, {"a": "2"})]
    path.write_text('{"data": [{"a": "1"}]}', encoding="utf-8")
    assert [row.values for row in read_rows(path)] == [{"a": "1"}]
    path.write_text('{"train": [{"a": "1"}], "data": [{"a": "2"}]}', encoding="utf-8")
    assert "train, data" in refused(path).message("en")
    path.write_text('{"data": [{"a": "1"}]}\n{"data": []}\n', encoding="utf-8")
    assert len(read_rows(path)) == 2, "JSON Lines whose rows have such a field"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_keep_their_lines_whatever_divides_them(tmp_path, delimiter, end):
    path = tmp_path / "a.csv"
    path.write_text(as_table(ROWS, delimiter, end), encoding="utf-8", newline="")
    rows = read_rows(path)
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == [2, 4, 5]


def test_a_table_says_where_it_is_wrong(tmp_path):
    path = tmp_path / "a.csv"
    for text, key, says in (
        ("a,b\n1,2\n1,2,3\n", "files.too_many_cells", "line 3: The row has 3 cells, and there are 2"),
        ("a,a\n1,2\n", "files.column_twice", "line 1: Columns 1, 2 are all called “a”"),
        ('a,b\n1,"2\n3,4\n', "files.bad_table", "line 2: The table cannot be read"),
        ("\n\n", "data.empty_file", "empty"),
        (f"{'x' * 80}\nb\n", "files.no_header", "does not name the columns"),
        ("a,b\n", "data.no_rows", "no rows"),
        ("a,b\n1,2\n3\n", "files.too_few_cells", "line 3: The row has 1 cells, and there are 2"),
        ("a,\n1,\n2,x\n", "files.column_unnamed", "line 3: Column 2 has no name, but holds “x”"),
        ("a,b\n1,\0\n", "data.binary_text", "line 2: The file holds a character (NUL)"),
        ('a,b\n1,"2" x\n', "files.bad_table", "line 2"),
    ):
        path.write_text(text, encoding="utf-8")
        error = refused(path)
        assert error.key == key
        assert says in error.message("en")


def test_empty_rows_and_a_column_without_a_name_or_values_are_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,,b\n1,,2\n\n,,\n3, ,4\n", encoding="utf-8")
    assert [row.values for row in read_rows(path)] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_sheets_with_the_same_columns_are_one_table(tmp_path):
    sheets = {
        "one": [["question", "answer"], ["Who?", "Mochi"], ["", ""], ["Since?", "@2020-03-01"]],
        "empty": [],
        "two": [["question", "answer"], ["How many?", "#3"], ["Open?", "TRUE"], ["Price?", "#2.5"]],
    }
    rows = read_rows(write_sheets(tmp_path / "a.ods", sheets))
    assert [row.values["answer"] for row in rows] == ["Mochi", "2020-03-01", "3", "true", "2.5"]
    assert [row.line for row in rows] == [2, 4, 2, 3, 4]
    sheets["two"][0][1] = "reply"
    error = refused(write_sheets(tmp_path / "a.ods", sheets))
    assert "“one” and “two” have different columns (two: question, reply)" in error.message("en")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 and no more")
    assert refused(tmp_path / "a.xlsx").key == "files.bad_spreadsheet"


def test_columns_of_other_types_become_what_json_has(tmp_path):
    import datetime
    import decimal

    table = pyarrow.table(
        {
            "n": [1, None],
            "d": [datetime.date(2020, 1, 2), None],
            "x": [decimal.Decimal("1.50"), decimal.Decimal("2.00")],
            "m": [[{"role": "user", "content": "a", "extra": None}], []],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = [row.values for row in read_rows(tmp_path / "a.parquet")]
    assert rows[0] == {"n": 1, "d": "2020-01-02", "x": "1.50", "m": [{"role": "user", "content": "a"}]}
    assert rows[1] == {"x": "2.00", "m": []}


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow", "zip", "jsonl.gz"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kind):
    path = write(tmp_path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path).key in {"files.bad_arrow", "files.bad_archive"}


def test_a_folder_is_read_by_name_and_rows_say_which_file_they_are_of(tmp_path):
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.jsonl").write_text(as_lines(ROWS[2:]), encoding="utf-8")
    (folder / "a.csv").write_text(as_table(ROWS[:1]), encoding="utf-8", newline="")
    (folder / "sub" / "c.json").write_text(json.dumps(ROWS[1:2]), encoding="utf-8")
    (folder / ".hidden.json").write_text("x", encoding="utf-8")
    rows = read_rows(folder)
    assert [(row.index, row.line, row.file) for row in rows] == [
        (1, 2, "a.csv"),
        (2, 1, "b.jsonl"),
        (3, 1, "sub/c.json"),
    ]
    (folder / "picture.png").write_bytes(b"\x89PNG")
    error = refused(folder)
    assert error.key == "files.unknown_kind"
    assert "set: Files of a kind that is not read: picture.png. " in error.message("en")


def test_archives_that_are_no_data_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/x", "x")
    assert refused(path).key == "files.empty_archive"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", b" " * 300_000_000)
    assert refused(path).key == "files.bomb"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.zip", "x")
    assert refused(path).key == "files.nested_archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside.jsonl", as_lines(ROWS))
    assert refused(path).key == "files.leads_out"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", as_lines(ROWS))
    content = bytearray(path.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = content.index(mark) + (6 if mark == b"PK\x03\x04" else 8)
        content[at] |= 1
    path.write_bytes(bytes(content))
    assert refused(path).key == "files.encrypted"


def test_chinese_names_in_archives_of_windows_are_readable(tmp_path):
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("placeholder.jsonl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, as_lines(ROWS))
    name = "问答样本.jsonl".encode("gbk")
    path.write_bytes(path.read_bytes().replace(b"placeholder.jsonl", name.rjust(17, b"_")))
    assert read_rows(path)[0].file == "___问答样本.jsonl"


def test_text_files_keep_their_marks_out_and_their_lines_in(tmp_path):
    path = tmp_path / "a.md"
    path.write_bytes(codecs.BOM_UTF8 + b"# Tea\r\n\r\nhot\n")
    assert read_rows(path)[0].values == {"text": "# Tea\n\nhot\n"}
