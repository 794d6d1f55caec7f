"""A version says where it came from, can be named by the beginning of its name, and lists what was left out."""

from __future__ import annotations

import json

import pytest

from danlu.data.datasets import DatasetLibrary
from danlu.data.manifest import DatasetManifest
from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.errors import DataError, NotFoundError, UsageError
from danlu.files import sha256_of, write_json
from tests.data.files import ROWS, question_rows, write_json_lines, write_json_rows

BAD = [{"instruction": "a"}, {"instruction": "b", "output": 5}, {"instruction": "c"}]


@pytest.fixture
def library(tmp_path):
    return DatasetLibrary(tmp_path / "datasets")


def test_a_version_knows_its_file_and_the_version_before(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json")
    first = library.add(path, "mochi")
    assert first.origin.file == "a.json"
    assert (first.origin.sha256, first.origin.bytes) == (sha256_of(path), path.stat().st_size)
    assert [(item.kind, item.encoding) for item in first.origin.read_as] == [("json", "UTF-8")]
    assert first.origin.parent is None
    write_json_rows(path, question_rows(5))
    assert library.add(path, "mochi").origin.parent == first.version


def test_what_older_versions_of_danlu_wrote_is_read(library, tmp_path):
    made = library.add(write_json_rows(tmp_path / "a.json"), "mochi")
    file = library.folder / "mochi" / made.version / "dataset.json"
    written = json.loads(file.read_bytes())
    del written["origin"]
    write_json(file, written)
    assert library.versions("mochi")[0].origin is None
    assert library.open("mochi").sha256 == made.sha256


def test_a_folder_has_a_hash_of_all_its_files(library, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    write_json_lines(folder / "a.jsonl")
    write_json_lines(folder / "b.jsonl", question_rows(2))
    first = library.add(folder, "mochi").origin
    assert (first.file, first.files) == ("many", 2)
    (folder / "b.jsonl").rename(folder / "c.jsonl")
    assert DatasetLibrary(tmp_path / "other").add(folder, "mochi").origin.sha256 != first.sha256


def test_the_entry_of_a_list_is_kept(library, tmp_path):
    write_json_rows(tmp_path / "a.json")
    write_json(tmp_path / "dataset_info.json", {"mochi": {"file_name": "a.json"}})
    source = Source.named(f"{tmp_path / 'dataset_info.json'}#mochi")
    assert library.add_source(source, "mochi").origin.listed == "dataset_info.json#mochi"


def repaired_copy(tmp_path, copy, **more):
    write_json_lines(copy)
    done = {"source": "raw.json", "sha256": "ab", "read": 4, "written": 3, "repairs": {"copies": [4]}}
    write_json(copy.with_suffix(".repairs.json"), done | more)
    return copy


def test_a_repaired_copy_carries_its_repair(library, tmp_path):
    copy = tmp_path / "copy.jsonl"
    repaired_copy(tmp_path, copy, written_sha256="")
    write_json(copy.with_suffix(".repairs.json"), json.loads(copy.with_suffix(".repairs.json").read_bytes()) | {
        "written_sha256": sha256_of(copy)
    })  # fmt: skip
    found = library.add(copy, "mochi").origin.repair
    assert (found.source, found.read, found.written, found.repairs) == ("raw.json", 4, 3, {"copies": 1})
    assert found.edited is False
    with copy.open("a", encoding="utf-8") as file:
        file.write('{"instruction": "new", "output": "row"}\n')
    assert library.add(copy, "mochi").origin.repair.edited is True


def test_a_damaged_report_of_a_repair_is_said(library, tmp_path):
    copy = repaired_copy(tmp_path, tmp_path / "copy.jsonl", read="many")
    with pytest.raises(DataError) as caught:
        library.add(copy, "mochi")
    assert caught.value.key == "versions.repair_damaged"
    assert library.list() == []


def versions_of(library, tmp_path) -> tuple[DatasetManifest, DatasetManifest]:
    first = library.add(write_json_rows(tmp_path / "a.json"), "mochi")
    return first, library.add(write_json_rows(tmp_path / "b.json", question_rows(5)), "mochi")


def test_a_version_is_named_by_its_beginning_or_by_its_hash(library, tmp_path):
    first, second = versions_of(library, tmp_path)
    assert library.pinned("mochi") == second
    for begin in (first.version, first.sha256[:8]):
        assert library.require(f"mochi@{begin}") == first
    assert library.open(f"mochi@{first.version}").version == first.version
    assert library.register(f"mochi@{first.sha256[:6]}") == first
    assert len(list(library.source_of(f"mochi@{first.version}"))) == 3


def test_a_version_that_is_not_there_or_not_the_only_one_is_refused_with_those_that_are(library, tmp_path):
    first, second = versions_of(library, tmp_path)
    with pytest.raises(NotFoundError) as unknown:
        library.require("mochi@1999")
    assert first.version in unknown.value.message()
    assert second.version in unknown.value.message()
    with pytest.raises(UsageError) as several:
        library.open("mochi@2")
    assert several.value.key == "versions.several_begin"
    with pytest.raises(NotFoundError):
        library.require("nothing@2")


def test_a_file_whose_name_looks_like_a_version_is_a_file(library, tmp_path, monkeypatch):
    versions_of(library, tmp_path)
    monkeypatch.chdir(tmp_path)
    write_json_rows(tmp_path / "mochi@work.json", question_rows(2))
    assert library.register("mochi@work.json").rows == 2


def test_one_version_is_removed_and_the_others_stay(library, tmp_path):
    first, second = versions_of(library, tmp_path)
    library.remove(f"mochi@{second.version}")
    assert library.versions("mochi") == [first]
    library.remove(f"mochi@{first.version}")
    assert not (library.folder / "mochi").exists()


def test_rows_that_cannot_be_used_are_left_out_counted_and_listed(library, tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", [BAD[0], *ROWS, BAD[1], BAD[2]])
    made = library.add_source(Source(path, Reading(), "a"), "mochi", leave_out_unusable=True)
    assert made.rows == len(ROWS)
    assert sum(made.unusable.values()) == 3
    listed = [json.loads(line) for line in library.left_out_file(made).read_text(encoding="utf-8").splitlines()]
    assert [(item["row"], item["line"], item["values"]) for item in listed] == [
        (1, 1, BAD[0]), (5, 5, BAD[1]), (6, 6, BAD[2]),
    ]  # fmt: skip
    assert {item["code"] for item in listed} == set(made.unusable)
    assert all(item["reason"] and item["fix"] for item in listed)
    # The good rows are the same as those of a file that has no others.
    assert made.sha256 == library.add(write_json_lines(tmp_path / "b.jsonl"), "other").sha256


def test_a_file_with_an_unusable_row_is_refused_and_the_message_names_both_ways_out(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json", [*ROWS, BAD[0]])
    with pytest.raises(DataError) as caught:
        library.add(path, "mochi")
    assert "--leave-out-unusable" in caught.value.message()
    assert "danlu data repair" in caught.value.message()


def test_a_file_without_any_usable_row_is_refused_whatever_was_asked(library, tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", [{"instruction": "a", "output": 5}] * 3)
    with pytest.raises(DataError) as caught:
        library.add_source(Source(path, Reading(), "a"), "mochi", leave_out_unusable=True)
    assert (caught.value.key, caught.value.params["rows"]) == ("versions.none_usable", 3)
    assert library.list() == []
