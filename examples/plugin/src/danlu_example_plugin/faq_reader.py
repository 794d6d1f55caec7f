"""Lists of questions as people type them: a line ``Q: …``, then ``A: …``, which goes on until the next question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from danlu.errors import DataError


class FaqReader:
    """Reads ``.faq`` files."""

    suffixes = frozenset({".faq"})

    def matches(self, path: Path) -> bool:
        """Every file with this suffix is meant."""
        return True

    def rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each question with its answer and the line on which it is asked."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            # An error of Danlu's own is shown as it is, with its remedy.
            raise DataError("data.not_utf8", str(path), likely="GBK/GB18030") from error
        began, question, answer = 0, "", []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("Q:"):
                if question:
                    yield began, {"instruction": question, "output": "\n".join(answer).strip()}
                began, question, answer = number, line[2:].strip(), []
            else:
                answer.append(line.removeprefix("A:").strip())
        if question:
            yield began, {"instruction": question, "output": "\n".join(answer).strip()}
