"""``danlu data versions``, ``diff`` and ``remove``: versions, what differs, and which runs need them."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from tests.data.files import ROWS, question_rows, write_json_rows
from tests.jobs.homes import words


@pytest.fixture
def two(danlu, tmp_path):
    """Two versions of a data set, the older first."""
    rows = question_rows(12)
    changed = [{**rows[0], "output": "It is nought."}, *rows[2:], *ROWS[:1]]
    return [
        danlu("data", "add", write_json_rows(tmp_path / name, item), "--name", "numbers", "--json").json
        for name, item in (("old.json", rows), ("new.json", changed))
    ]


def test_versions_are_listed_newest_first_with_where_they_came_from(danlu, two):
    old, new = two
    out = danlu("data", "versions", "numbers").out
    assert out.index(new["version"]) < out.index(old["version"])
    assert "from new.json" in out
    assert f"newest before: {old['version']}" in out
    told = danlu("data", "versions", "numbers", "--json").json
    assert [item["version"] for item in told["versions"]] == [new["version"], old["version"]]
    assert told["versions"][1]["origin"]["file"] == "old.json"
    assert told["versions"][0]["runs"] == []
    assert "no data set" in danlu("data", "versions", "nothing", expect=1).line


def test_two_versions_are_compared(danlu, two):
    out = danlu("data", "diff", "numbers").out
    assert "+ 1 added  - 1 removed  ~ 1 changed  = 10 the same" in out
    assert "output: It is [-0-]{+nought+}." in out
    told = danlu("data", "diff", "numbers", two[0]["sha256"][:8], two[1]["version"], "--json").json
    assert told["counts"] == {"added": 1, "removed": 1, "changed": 1, "same": 10}
    assert told["removed"] == [{"row": 2, "values": question_rows(2)[1]}]
    assert told["changed"][0]["fields"] == [{"field": "output", "old": "It is 0.", "new": "It is nought."}]


def test_two_files_are_compared_and_what_is_not_shown_is_counted(danlu, tmp_path):
    one, other = write_json_rows(tmp_path / "a.json", ROWS), write_json_rows(tmp_path / "b.json", question_rows(25))
    short = danlu("data", "diff", one, other).out
    assert "… 5 more added rows" in short
    whole = danlu("data", "diff", one, other, "--full").out
    assert "What is number 24?" in whole
    assert "more added rows" not in whole
    assert "two things are needed" in danlu("data", "diff", one, expect=2).line


def test_a_version_is_shown_checked_and_an_unknown_one_names_those_that_are(danlu, two):
    old = f"numbers@{two[0]['version']}"
    assert "What is number 1?" in danlu("data", "show", old, "--row", "2").out
    assert danlu("data", "check", old, "--json").json["rows"] == 12
    line = danlu("data", "show", "numbers@1999", expect=1).line
    assert two[0]["version"] in line
    assert two[1]["version"] in line


def test_rows_that_are_left_out_are_counted_where_they_are_added_listed_and_planned(danlu, material, tmp_path):
    path = write_json_rows(tmp_path / "a.json", [*question_rows(12), {"instruction": "a"}])
    assert "--leave-out-unusable" in danlu("data", "add", path, "--name", "numbers", expect=1).line
    assert "1 of 13 rows" in danlu("data", "add", path, "--name", "numbers", "--leave-out-unusable").err
    assert "1 of 13 rows" in danlu("data", "versions", "numbers").out
    told = danlu("data", "versions", "numbers", "--json").json["versions"][0]
    assert told["unusable"] == {"data.field_missing": 1}
    with pathlib.Path(told["left_out_file"]).open(encoding="utf-8") as file:
        assert json.loads(file.readline())["row"] == 13


def test_a_run_says_how_data_are_mixed_and_the_version_it_needs_is_kept_unless_it_is_forced(danlu, material, tmp_path):
    first = write_json_rows(tmp_path / "a.json", [*question_rows(12), {"instruction": "a"}])
    made = danlu("data", "add", first, "--name", "numbers", "--leave-out-unusable", "--json").json
    danlu("data", "add", write_json_rows(tmp_path / "b.json", question_rows(9)), "--name", "numbers")
    old = f"numbers@{made['version']}"
    told = danlu("train", *words(material[0], old, "data.holdout=0", f"data.weights={{{old}: 2}}")).err
    assert "left out when it was registered: 1 (12 are left)" in " ".join(told.split())
    assert "rows per epoch" in told
    assert re.search(r"numbers +12 +2 +24 +100\.0%", told)
    (run,) = danlu("data", "versions", old, "--json").json["versions"][0]["runs"]
    for named in (old, "numbers"):
        refused = danlu("data", "remove", named, expect=1).line
        assert run in refused
        assert "--force" in refused
    newest = danlu("data", "list", "--json").json["datasets"][0]["version"]
    danlu("data", "remove", f"numbers@{newest}")
    danlu("data", "remove", old, "--force")
    assert danlu("data", "list", "--json").json == {"datasets": []}


def test_a_repaired_copy_of_a_version_says_which_version_was_repaired(danlu, two, tmp_path):
    copy = tmp_path / "copy.jsonl"
    danlu("data", "repair", f"numbers@{two[0]['version']}", "--out", copy)
    danlu("data", "add", copy, "--name", "mended")
    assert f"repaired from numbers@{two[0]['version']}" in danlu("data", "versions", "mended").out
