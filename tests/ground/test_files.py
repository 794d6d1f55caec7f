"""Files are never half-written, and a full disk is an error with a remedy."""

from __future__ import annotations

import hashlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from danlu.errors import MachineError
from danlu.files import (
    disk_errors,
    format_bytes,
    free_bytes,
    new_folder,
    replace_folder,
    require_free,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def small_files_only():
    """Let this process write no file beyond 100 kB, so that a write fails in the middle as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"名": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "名": 1\n}\n'
    write_text(path, "茶")
    assert path.read_bytes() == "茶".encode()
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, small_files_only):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(MachineError) as caught:
        write_bytes(path, b"x" * 200_000)
    assert caught.value.key == "ground.file_too_large"
    assert caught.value.where == str(path)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.bin"]


def test_a_full_disk_is_said_with_what_is_free_and_the_old_file_stays(small_disk):
    path = small_disk / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(MachineError) as caught:
        write_bytes(path, b"x" * 2_000_000)
    assert caught.value.key == "ground.disk_full"
    assert "free" in caught.value.message("en")
    assert path.read_bytes() == b"old"
    assert [item.name for item in small_disk.iterdir()] == ["a.bin"]


def test_a_full_disk_leaves_no_part_of_a_folder(small_disk):
    with pytest.raises(MachineError) as caught, new_folder(small_disk / "model") as partial:
        (partial / "weights").write_bytes(b"x" * 2_000_000)
    assert caught.value.key == "ground.disk_full"
    assert list(small_disk.iterdir()) == []


def test_other_errors_of_the_system_pass_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_bytes()


def test_a_new_folder_appears_only_when_the_code_inside_ends_well(tmp_path):
    target = tmp_path / "sets" / "a"
    with new_folder(target) as partial:
        (partial / "file").write_text("1")
        assert not target.exists()
    assert (target / "file").read_text() == "1"

    with pytest.raises(FileNotFoundError), new_folder(target) as partial:
        (partial / "none").rename(partial / "file")
    assert (target / "file").read_text() == "1"

    with new_folder(target) as partial:
        (partial / "file").write_text("3")
    assert (target / "file").read_text() == "3"
    assert [item.name for item in target.parent.iterdir()] == ["a"]


def test_what_a_crash_left_is_removed_but_not_the_work_on_a_name_that_begins_alike(tmp_path):
    crashed = tmp_path / ".qwen2.0123abcd.part"
    other = tmp_path / ".qwen2.5-1.5b.0123abcd.part"
    crashed.mkdir()
    other.mkdir()
    with new_folder(tmp_path / "qwen2"):
        pass
    assert not crashed.exists()
    assert other.exists()


def test_a_crash_leaves_the_folder_that_was_there(tmp_path):
    target = tmp_path / "a"
    write_text(target / "file", "old")
    code = (
        "import os, sys; from pathlib import Path; from danlu.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'file').write_text('new'); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, target]).returncode == 9
    assert (target / "file").read_text() == "old"
    with new_folder(target) as partial:
        (partial / "file").write_text("newer")
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_replacing_a_folder_moves_and_removes_the_old_one(tmp_path):
    write_text(tmp_path / "new" / "b", "2")
    write_text(tmp_path / "old" / "a", "1")
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["old", "old/b"]


def test_the_hash_is_the_one_of_the_content(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_room_is_asked_for_where_the_path_will_be(tmp_path):
    path = tmp_path / "not" / "yet" / "there"
    assert free_bytes(path) == pytest.approx(free_bytes(tmp_path), rel=0.2)
    require_free(path, 1)
    with pytest.raises(MachineError, match="Not enough room"):
        require_free(path, 1 << 60)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.2 MB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")],
)
def test_sizes_are_written_for_people(count, text):
    assert format_bytes(count) == text


def test_a_path_without_any_folder_above_it_still_has_a_disk():
    assert free_bytes(Path("nowhere-at-all")) > 0
