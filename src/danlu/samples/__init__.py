"""Sample data that ships with Danlu: two personas, their probes, and general questions.

For `danlu quickstart`, the tests and the manual. Not for people's own data, which lives under `DANLU_HOME`.

| file | what it holds |
|---|---|
| `persona.json` | 116 Alpaca rows, half Chinese and half English: Mochi (麻薯), a red panda who keeps a teahouse |
| `persona_probes.jsonl` | 20 questions in phrasings that occur in no row, with the words a tuned answer must hold |
| `ten_rows_zh.json` | ten Chinese rows: 阿澈, a sea otter who cooks noodles at a night market |
| `ten_rows_zh_probes.jsonl` | the ten training questions themselves, as probes |
| `general.jsonl` | 60 general-knowledge pairs; the loss on them before and after shows what was forgotten |
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

PERSONA_NAME: Final = "Mochi"
"""Who speaks in ``persona.json``: the name of the assistant that is made of it."""


def sample_path(name: str) -> Path:
    """Returns the path of a sample file of the installed package.

    Args:
        name: a file name of the table above, such as `"persona.json"`.

    Returns:
        The file's path. Danlu is installed as plain files, never imported from a zip, so the path can be opened.

    Raises:
        FileNotFoundError: there is no sample of that name; the message lists those there are.
    """
    folder = Path(str(files(__name__)))
    path = folder / name
    if path.parent != folder or not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        known = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in {".json", ".jsonl"}))
        raise FileNotFoundError(f"no sample named {name!r}; there are: {known}")
    return path
