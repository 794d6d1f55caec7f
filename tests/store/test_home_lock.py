from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from danlu.errors import ConflictError
from danlu.store.home_lock import HomeLock

HOLD = """
import sys
from pathlib import Path
from danlu.store.home_lock import HomeLock
lock = HomeLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_program_is_told_the_process_id_of_the_first(tmp_path: Path, holder) -> None:
    with pytest.raises(ConflictError) as caught:
        HomeLock(tmp_path).acquire()
    assert caught.value.key == "ground.home_in_use"
    assert str(holder.pid) in caught.value.message("en")


def test_a_killed_program_leaves_the_home_free(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    with HomeLock(tmp_path):
        pass


def test_two_claims_in_one_process_exclude_each_other_and_release_gives_free(tmp_path: Path) -> None:
    first, second = HomeLock(tmp_path / "new" / "home"), HomeLock(tmp_path / "new" / "home")
    first.acquire()
    with pytest.raises(ConflictError):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()
