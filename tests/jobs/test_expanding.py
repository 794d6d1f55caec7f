"""A model is asked until there are enough rows; what was done before an interruption is not asked again."""

from __future__ import annotations

import asyncio
import json

import pytest

from danlu.data.making.judging import Judge
from danlu.data.making.tasks import Task
from danlu.errors import DataError, EngineError, UsageError
from danlu.jobs.expanding import ROUNDS, Journal, make_rows
from danlu.models.messages import Message

TASKS = [
    Task("paraphrase", number, 2, (Message("user", name),), f"Where is the {name}?", f"The {name} is by the bridge.")
    for number, name in enumerate(("tea", "cake", "door"), start=1)
]
REPLIES = {
    "tea": ["Where can I find tea?\nWhere do they keep the tea?"],
    "cake": ["Where is the cake?", "On which shelf is the cake?\nBy the bridge.", "Where did the cake go?"],
    "door": ["no", "no", "no"],
}


class Model:
    """Answers what is prepared, round after round, and can be made to fail."""

    def __init__(self, fails_after: int = 10**6) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails_after = fails_after

    async def __call__(self, messages, room, seed) -> str:
        if len(self.asked) >= self.fails_after:
            raise EngineError("serving.engine_gone", reason="gone")
        name = messages[0].content
        self.asked.append((name, seed))
        return REPLIES[name][sum(asked == name for asked, _ in self.asked) - 1]


def made(path, model, *, resume=False, tasks=TASKS, by="m", parallel=2):
    told = []
    with Journal(path, tasks, by, resume=resume) as journal:
        found = asyncio.run(
            make_rows(
                tasks, Judge([]), model, journal, by=by, seed=7, parallel=parallel, advance=lambda *at: told.append(at)
            )
        )
    return found, told


def test_a_model_is_asked_again_where_rows_are_missing_and_what_is_turned_down_is_counted(tmp_path):
    model = Model()
    found, told = made(tmp_path / "a.jsonl", model)
    assert [(row["instruction"], row["made"]["row"]) for row in found.rows] == [
        ("Where can I find tea?", 1), ("Where do they keep the tea?", 1),
        ("On which shelf is the cake?", 2), ("Where did the cake go?", 2),
    ]  # fmt: skip
    assert all((row["accepted"], row["reviewed"]) == (False, False) for row in found.rows)
    assert found.rows[0]["output"] == TASKS[0].answer
    assert found.rows[0]["made"]["question"] == TASKS[0].question
    assert dict(found.turned_down) == {"same": 1, "statement": 4}
    assert (found.asked, found.short, found.missing) == (1 + 2 * ROUNDS, 1, 2)
    assert told[-1] == (4, 6)
    assert len({seed for _, seed in model.asked}) == len(model.asked), "each request has a seed of its own"
    entries = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    assert sum(len(entry["proposed"]) for entry in entries) == 4 + 5


def test_after_an_interruption_the_same_rows_come_out_and_nothing_is_asked_twice(tmp_path):
    whole = made(tmp_path / "whole.jsonl", Model(), parallel=1)[0]
    path = tmp_path / "a.jsonl"
    for already in (2, 4):
        broken = Model(fails_after=already)
        with pytest.raises(ExceptionGroup) as caught:
            made(path, broken, parallel=1)
        assert caught.group_contains(EngineError)
        with path.open("a", encoding="utf-8") as file:
            file.write('{"task": 1, "rou')
        later = Model()
        later.asked = list(broken.asked)
        found = made(path, later, resume=True, parallel=1)[0]
        assert found == whole
        assert len(later.asked) == whole.asked
        path.unlink()


def test_a_journal_is_not_gone_on_with_by_accident(tmp_path):
    path = tmp_path / "a.jsonl"
    made(path, Model())
    with pytest.raises(UsageError, match="--resume"):
        made(path, Model())
    with pytest.raises(UsageError, match="other rows"):
        made(path, Model(), resume=True, tasks=TASKS[:2])
    with pytest.raises(UsageError, match="other"):
        made(path, Model(), resume=True, by="another")
    path.write_text('{"format": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        made(path, Model(), resume=True)
