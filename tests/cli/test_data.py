"""``danlu data``: registered, checked, shown, listed, removed; bad files end with one line."""

from __future__ import annotations

import json

import pytest

from tests.data.files import ROWS, question_rows, story, write_json_rows


@pytest.fixture
def rows(tmp_path):
    return write_json_rows(tmp_path / "rows.json")


def test_a_file_is_added_listed_shown_and_removed(danlu, rows):
    assert "No data sets yet" in danlu("data", "list").err
    added = danlu("data", "add", rows, "--name", "mochi", "--json").json
    assert (added["name"], added["rows"]) == ("mochi", 3)
    assert "mochi" in danlu("data", "list").out
    assert [item["version"] for item in danlu("data", "list", "--json").json["datasets"]] == [added["version"]]
    shown = danlu("data", "show", "mochi", "--row", "3").out
    assert "Be short." in shown
    assert "茶" in shown
    danlu("data", "remove", "mochi")
    assert danlu("data", "list", "--json").json == {"datasets": []}
    assert "no data set" in danlu("data", "remove", "mochi", expect=1).line


def test_a_file_is_shown_as_a_model_sees_it(danlu, rows, material):
    shown = danlu("data", "show", rows, "--as-model", material[0]).out
    assert "<|im_start|>user" in shown
    assert f"⟦{ROWS[0]['output']}<|im_end|>" in shown  # what is learned, whole characters even where a token is not one
    assert shown.count("⟦") == shown.count("⟧") == 2  # once more in the line that explains the signs
    assert "no row 9" in danlu("data", "show", rows, "--row", "9", expect=2).line


def test_the_check_prints_what_the_interface_promises(danlu, rows, material):
    checked = danlu("data", "check", rows, "--model", material[0], "--json").json
    assert {"rows", "usable", "problems", "tokens", "duplicates", "leaks"} <= set(checked)
    assert set(checked["tokens"]) == {"total", "supervised", "p50", "p95", "max"}
    promised = {"code", "severity", "row", "line", "field", "message", "fix"}
    assert set(checked["problems"][0]) == promised | {"file"}
    danlu("data", "add", rows, "--name", "mochi")
    assert danlu("data", "check", "mochi", "--json").json["rows"] == 3


def test_rows_that_cannot_be_used_are_listed_and_the_exit_code_says_so(danlu, tmp_path):
    path = write_json_rows(tmp_path / "bad.json", [*ROWS, {"instruction": "a"}, {"instruction": "b", "output": 5}])
    report = danlu("data", "check", path, expect=1).out
    assert "2 of 5 rows cannot be used; 3 can" in report
    assert "“output” is missing" in report
    assert "4 (1)" in report
    assert danlu("data", "check", path, "--json", expect=1).json["usable"] == 3
    good = write_json_rows(tmp_path / "good.json", question_rows(100))
    assert "all 100 rows can be used" in danlu("data", "check", good).out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "The file is empty"),
        (b"hello", "not valid JSON"),
        (b'[{"instruction": "a", "output": "b"}\n{}]', "line 2: This is not valid JSON"),
        (b'{"a": {"b": 1}}', "which the answer; found: a"),
        (b"[1]", "must be an object"),
        (b'[{"instruction": "a", "output": ""}]', "row 1 (line 1), field output: "),
        ('[{"instruction": "\xe9 a", "output": "\xff"}]'.encode("latin-1"), "looks like another encoding"),
        ("\x89PNG\r\n\x1a\n\xff".encode("latin-1"), "looks like no text at all"),
        (json.dumps([{"instruction": "a", "output": "x" * 10_000_000}]).encode(), "10,000,000 characters"),
    ],
)
def test_a_bad_file_ends_with_one_line_and_leaves_nothing(danlu, home, tmp_path, content, says):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    called = danlu("data", "add", path, "--name", "bad", expect=1)
    assert says in called.line
    assert "bad.json" in called.line
    assert called.out == ""
    assert list((home / "datasets").iterdir()) == []


def test_a_bad_name_is_wrong_usage(danlu, rows):
    assert "cannot be the name" in danlu("data", "add", rows, "--name", "a/b", expect=2).line


def test_a_byte_order_mark_is_accepted(danlu, tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    assert danlu("data", "add", path, "--name", "bom", "--json").json["rows"] == 3


def test_a_name_that_looks_like_markup_is_shown_as_it_is(danlu, tmp_path):
    path = write_json_rows(tmp_path / "[red]rows[x].json")
    assert "[red]rows[x].json: 3 rows" in danlu("data", "show", path).out


def test_a_text_is_added_checked_shown_and_listed(danlu, tmp_path, material):
    path = tmp_path / "notes.md"
    path.write_text("# 竹里\n\n" + story(200), encoding="utf-8")
    assert "plain text, documents: 1" in danlu("data", "add", path, "--name", "notes").err
    assert "documents: 1" in danlu("data", "list").out
    checked = danlu("data", "check", "notes", "--model", material[0]).out
    assert "documents: 1" in checked
    assert "characters" in checked
    assert danlu("data", "check", path, "--json").json["kind"] == "texts"
    shown = danlu("data", "show", "notes").out
    assert "# 竹里" in shown
    assert "the first 2,000 of" in shown
    as_model = danlu("data", "show", "notes", "--as-model", material[0]).out
    assert "<|endoftext|>⟦# 竹里" in as_model
    assert "1024 tokens, 1023 of them learned" in as_model
    assert "no row 2" in danlu("data", "show", "notes", "--row", "2", expect=2).line


def test_a_short_text_is_shown_with_its_end(danlu, tmp_path, material):
    path = tmp_path / "short.txt"
    path.write_text("tea", encoding="utf-8")
    assert "⟦tea<|endoftext|>⟧" in danlu("data", "show", path, "--as-model", material[0]).out


def test_a_copy_is_written_beside_what_was_done_and_never_over_a_file(danlu, tmp_path):
    path = write_json_rows(tmp_path / "a.json", [*question_rows(3), question_rows(1)[0]])
    out = tmp_path / "good.jsonl"
    told = danlu("data", "repair", path, "--out", out, "--json").json
    assert told == {"out": str(out), "read": 4, "written": 3, "repairs": {"copies": [4]}}
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3
    log = json.loads((tmp_path / "good.repairs.json").read_text(encoding="utf-8"))
    assert log["source"] == "a.json"
    assert len(log["sha256"]) == 64
    assert "already" in danlu("data", "repair", path, "--out", out, expect=2).err
    assert "jsonl" in danlu("data", "repair", path, "--out", tmp_path / "x.csv", expect=2).err
    assert "--dry-run" in danlu("data", "repair", path, expect=2).err
    assert "Copies left out: 1 (rows 4)" in danlu("data", "repair", path, "--dry-run").out
