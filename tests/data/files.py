"""Small data files that tests write."""

from __future__ import annotations

import json
from pathlib import Path

ROWS = [
    {"instruction": "Who are you?", "input": "", "output": "I am Mochi."},
    {"instruction": "你是谁?", "input": "", "output": "我是麻薯。"},
    {"instruction": "Say", "input": "tea", "output": "茶", "system": "Be short.", "history": [["Hi", "Hello"]]},
]


def write_json_rows(path: Path, rows: object = ROWS, **options) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False, **options), encoding="utf-8")
    return path


def write_json_lines(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def question_rows(count: int) -> list[dict[str, str]]:
    return [{"instruction": f"What is number {n}?", "output": f"It is {n}."} for n in range(count)]


def story(sentences: int = 60, name: str = "Mochi") -> str:
    """Return a text of several hundred words that a tiny tokenizer can write."""
    return "".join(f"On day {n} {name} the red panda poured tea {n * 7 % 13} times.\n\n" for n in range(sentences))


def write_texts(path: Path, count: int = 12) -> Path:
    """Write documents of different lengths as JSON Lines."""
    return write_json_lines(path, [{"text": story(1 + n % 5, f"panda {n}"), "title": str(n)} for n in range(count)])
