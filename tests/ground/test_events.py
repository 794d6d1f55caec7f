"""The event log: numbered without gaps, whole lines only, followed while it grows."""

from __future__ import annotations

import json
import resource
import signal
import threading

import pytest

from danlu.errors import MachineError
from danlu.events import (
    Checkpoint,
    Eval,
    EventLog,
    Failed,
    Finished,
    Planned,
    Sample,
    SampleAnswer,
    Started,
    Step,
    Stopped,
    Warned,
    follow_events,
    read_events,
)

EVERY = [
    Planned(predicted_seconds=1.5, predicted_peak_rss_bytes=10, steps=3),
    Started(from_step=0, steps=3, device="cpu", dtype="float32"),
    Step(step=1, epoch=0.5, loss=2.5, learning_rate=1e-4, grad_norm=1.0, tokens=9, supervised_tokens=4, seconds=0.1),
    Eval(step=1, heldout_loss=2.0, best=True),
    Sample(step=1, answers=(SampleAnswer(question="你是谁?", answer="麻薯\n🙂", passed=None),)),
    Checkpoint(step=1, path="checkpoints/step-000001", best=True),
    Warned(code="training.plain_path", message="slow"),
    Finished(step=3, train_loss=1.0, heldout_loss=None, seconds=2.0, peak_rss_bytes=11),
    Failed(code="training.diverged", message="no"),
    Stopped(step=2),
]


def warning(text: str) -> Warned:
    return Warned(code="training.plain_path", message=text)


def test_every_event_comes_back_as_it_was_and_numbered_from_one(tmp_path):
    path = tmp_path / "run" / "events.jsonl"
    with EventLog(path) as log:
        written = [log.append(event) for event in EVERY]
    assert read_events(path) == written
    assert [item.event for item in written] == EVERY
    assert [item.seq for item in written] == list(range(1, len(EVERY) + 1))


def test_a_line_is_one_json_object_with_seq_time_and_type(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(EVERY[4])
    line = json.loads(path.read_text(encoding="utf-8"))
    assert list(line)[:3] == ["seq", "time", "type"]
    assert line["type"] == "sample"
    assert line["time"].endswith("+00:00")
    assert "麻薯" in path.read_text(encoding="utf-8")


def test_an_event_is_readable_as_soon_as_append_returns(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(warning("a"))
        assert len(read_events(path)) == 1


@pytest.mark.parametrize("rest", [b'{"seq": 3, "ti', b'{"seq": 3, "time": "x", "type": "stopped", "step": 1}'])
def test_a_line_cut_off_by_a_crash_is_ignored_by_readers_and_removed_by_the_next_writer(tmp_path, rest):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(warning("a"))
        log.append(warning("b"))
    with path.open("ab") as file:
        file.write(rest)
    assert [item.seq for item in read_events(path)] == [1, 2]
    with EventLog(path) as log:
        assert log.append(warning("c")).seq == 3
    assert [item.event.message for item in read_events(path)] == ["a", "b", "c"]


def test_a_log_that_is_only_half_a_line_begins_anew(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq": 1')
    with EventLog(path) as log:
        assert log.append(warning("a")).seq == 1
    assert len(read_events(path)) == 1


def test_no_file_means_no_events(tmp_path):
    assert read_events(tmp_path / "events.jsonl") == []


def test_following_begins_at_the_beginning_and_ends_when_the_writer_is_done(tmp_path):
    path = tmp_path / "events.jsonl"
    done = threading.Event()
    seen: list[int] = []
    first = threading.Event()

    def follow() -> None:
        for item in follow_events(path, done.is_set, interval=0.01):
            seen.append(item.seq)
            first.set()

    reader = threading.Thread(target=follow)
    reader.start()
    with EventLog(path) as log:
        log.append(warning("a"))
        assert first.wait(20)
        for _ in range(50):
            log.append(warning("b"))
    done.set()
    reader.join(20)
    assert seen == list(range(1, 52))


def test_following_waits_for_the_end_of_a_half_written_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(warning("é" * 10))
    content = path.read_bytes()
    parts = iter([content[:40], content[40:]])
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        part = next(parts, None)
        if part is not None:
            with path.open("ab") as file:
                file.write(part)
        return looks == 3

    path.unlink()
    assert [item.seq for item in follow_events(path, done, interval=0)] == [1]


def test_a_full_disk_leaves_whole_lines_and_no_gap(tmp_path):
    path = tmp_path / "events.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with EventLog(path) as log:
        log.append(warning("first"))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            with pytest.raises(MachineError):
                log.append(warning("x" * 5000))
            assert log.append(warning("short")).seq == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    assert [(item.seq, item.event.message) for item in read_events(path)] == [(1, "first"), (2, "short")]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"type": "started"}', '{"seq": 2, "time": "now", "type": "sung"}', "\x00\x00"]
)
def test_a_damaged_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(warning("a"))
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    for read in (lambda: read_events(path), lambda: list(follow_events(path, lambda: True)), lambda: EventLog(path)):
        with pytest.raises(MachineError) as caught:
            read()
        assert caught.value.key == "ground.file_damaged"
        assert caught.value.where == f"{path}:2"
