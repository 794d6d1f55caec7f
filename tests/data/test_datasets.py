"""Data sets are named, versioned and immutable; a file may stand where a name may."""

from __future__ import annotations

import pytest

from danlu.data.datasets import DatasetLibrary, read_dataset
from danlu.errors import DataError, MachineError, NotFoundError, UsageError
from tests.data.files import ROWS, question_rows, write_json_lines, write_json_rows


@pytest.fixture
def library(tmp_path):
    return DatasetLibrary(tmp_path / "datasets")


def test_a_registered_set_is_read_back_as_it_was(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json")
    manifest = library.add(path, "mochi")
    assert (manifest.name, manifest.rows, manifest.row_format, manifest.source) == ("mochi", 3, "alpaca", "a.json")
    assert manifest.version.endswith(manifest.sha256[:8])
    opened = library.open("mochi")
    assert [item.messages for item in opened.conversations] == [
        item.messages for item in read_dataset(path).conversations
    ]
    assert opened.sha256 == manifest.sha256
    assert opened.version == manifest.version


def test_the_same_rows_are_the_same_version_however_they_are_written(library, tmp_path):
    first = library.add(write_json_rows(tmp_path / "a.json", indent=4), "mochi")
    assert library.add(write_json_lines(tmp_path / "a.jsonl"), "mochi") == first
    assert len(library.versions("mochi")) == 1


def test_other_rows_are_a_new_version_and_the_old_one_stays(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json")
    first = library.add(path, "mochi")
    write_json_rows(path, question_rows(5))
    second = library.add(path, "mochi")
    assert second.version != first.version
    assert [item.version for item in library.versions("mochi")] == [second.version, first.version]
    assert len(library.open("mochi").conversations) == 5
    assert len(library.open_version("mochi", first.version).conversations) == 3


def test_a_version_does_not_change_with_the_file_it_came_from(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json")
    library.add(path, "mochi")
    path.unlink()
    assert len(library.open("mochi").conversations) == 3


def test_texts_with_unusual_line_separators_survive(library, tmp_path):
    rows = [{"instruction": "a\u2028b", "output": "c\x85d\u2029e\r\nf\x0b"}]
    library.add(write_json_rows(tmp_path / "a.json", rows), "odd")
    conversation = library.open("odd").conversations[0]
    assert conversation.question == "a\u2028b"
    assert conversation.answer == "c\x85d\u2029e\r\nf\x0b"


def test_a_refused_file_leaves_nothing(library, tmp_path):
    path = write_json_rows(tmp_path / "a.json", [*ROWS, {"instruction": "a"}])
    with pytest.raises(DataError) as caught:
        library.add(path, "mochi")
    assert caught.value.where == "a.json, row 4 (line 1), field output"
    assert library.list() == []
    assert not (library.folder / "mochi").exists()


def test_the_list_has_the_newest_version_of_each_by_name(library, tmp_path):
    assert library.list() == []
    library.add(write_json_rows(tmp_path / "a.json"), "b")
    newest = library.add(write_json_rows(tmp_path / "a.json", question_rows(4)), "b")
    library.add(write_json_rows(tmp_path / "a.json"), "a")
    (library.folder / ".half.0123abcd.part").mkdir()
    assert [(item.name, item.rows) for item in library.list()] == [("a", 3), ("b", newest.rows)]


def test_removing_takes_all_versions(library, tmp_path):
    library.add(write_json_rows(tmp_path / "a.json"), "a")
    library.add(write_json_rows(tmp_path / "a.json", question_rows(4)), "a")
    library.remove("a")
    assert list(library.folder.iterdir()) == []
    with pytest.raises(NotFoundError, match="no data set"):
        library.remove("a")


@pytest.mark.parametrize("name", ["..", ".", "../runs", "a/b", "", "a" * 65, ".hidden", "-x", "a b", "a\n"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(library, tmp_path, name):
    with pytest.raises(UsageError):
        library.add(write_json_rows(tmp_path / "a.json"), name)
    with pytest.raises(NotFoundError):
        library.remove(name)


@pytest.mark.parametrize("name", ["mochi", "麻薯-1", "Größe_2", "データ", "v1.0", "a" * 64])
def test_names_of_any_script_are_welcome(library, tmp_path, name):
    assert library.add(write_json_rows(tmp_path / "a.json"), name).name == name
    assert library.open(name).name == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("persona.json", "persona"),
        ("my rows (2).jsonl", "my-rows-2"),
        ("数据.json", "数据"),
        ("Übung.json", "Übung"),
        ("---.json", "data"),
    ],
)
def test_a_file_that_is_named_for_training_is_registered_under_its_own_name(library, tmp_path, file, name):
    path = write_json_rows(tmp_path / file)
    assert library.register(str(path)).name == name
    assert library.register(str(path)) == library.register(name)


def test_a_name_is_looked_up_before_a_file(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json_rows(tmp_path / "other.json", question_rows(7))
    library.add(tmp_path / "other.json", "mochi")
    write_json_rows(tmp_path / "mochi")
    assert len(library.open("mochi").conversations) == 7
    assert library.source_of("mochi").path.parent.parent == library.folder / "mochi"
    assert len(library.open("other.json").conversations) == 7
    assert library.open("other.json").version == ""


@pytest.mark.parametrize("use", ["open", "register", "source_of"])
def test_a_name_that_is_nothing_gets_the_names_that_exist(library, tmp_path, use):
    library.add(write_json_rows(tmp_path / "a.json"), "mochi")
    with pytest.raises(NotFoundError) as caught:
        getattr(library, use)("moci")
    assert "(data sets: mochi)" in caught.value.message("en")


@pytest.mark.parametrize("use", ["open", "register"])
def test_a_file_that_is_not_there_is_said_to_be_missing(library, use):
    with pytest.raises(DataError, match="no such file"):
        getattr(library, use)("nowhere/rows.json")


def test_a_version_that_is_gone_is_said(library, tmp_path):
    library.add(write_json_rows(tmp_path / "a.json"), "mochi")
    with pytest.raises(NotFoundError, match="mochi \\(20000101-000000-00000000\\)"):
        library.open_version("mochi", "20000101-000000-00000000")


def test_a_damaged_manifest_is_named(library, tmp_path):
    manifest = library.add(write_json_rows(tmp_path / "a.json"), "mochi")
    path = library.folder / "mochi" / manifest.version / "dataset.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(MachineError) as caught:
        library.list()
    assert caught.value.where == str(path)
    assert "backup" in caught.value.message("en")
