"""``danlu assistants`` and ``danlu keys`` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.accounts.keys import KeyRing
from danlu.cli.main import run
from danlu.models.versions import BaseModelRef, ModelVersion, save_version
from danlu.settings import Home
from danlu.store.store import Store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with two versions."""
    monkeypatch.setenv("DANLU_HOME", str(tmp_path))
    folder = Home(tmp_path).make()
    for number in (1, 2):
        (folder.versions / f"tiny-{number}").mkdir()
        version = ModelVersion(
            id=f"tiny-{number}",
            name=f"tiny{number}",
            created_at=f"2026-01-0{number}T00:00:00Z",
            base=BaseModelRef(name="tiny"),
        )
        save_version(folder.versions / version.id, version)
    return folder


def danlu(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(list(words))
    return int(ended.value.code or 0)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = danlu(*words)
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def test_an_assistant_is_made_changed_promoted_rolled_back_and_removed(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "assistants", "list")[2].startswith("No assistants yet.")
    code, _, err = said(capsys, "assistants", "create", "Mochi", "tiny1", "--greeting", "Hi", "--suggestion", "Who?")
    assert (code, "answers with tiny-1" in err) == (0, True)
    assert said(capsys, "assistants", "create", "Mochi", "tiny1")[0] == 1

    code, out, _ = said(capsys, "assistants", "set", "Mochi", "--temperature", "0.2", "--system", "Be brief.", "--json")
    changed = json.loads(out)
    assert (changed["generation"]["temperature"], changed["system"], changed["greeting"]) == (0.2, "Be brief.", "Hi")
    code, _, err = said(capsys, "assistants", "set", "Mochi")
    assert (code, "Nothing is said" in err) == (2, True)
    assert said(capsys, "assistants", "set", "Mochi", "--engine", "warp")[0] == 2

    assert said(capsys, "assistants", "promote", "Mochi", "tiny2")[0] == 0
    code, _, err = said(capsys, "assistants", "promote", "Mochi", "tiny2")
    assert (code, "already" in err) == (1, True)
    shown = json.loads(said(capsys, "assistants", "show", "Mochi", "--json")[1])
    assert [item["version_id"] for item in shown["versions"]] == ["tiny-1", "tiny-2"]

    assert "answers with tiny-1" in said(capsys, "assistants", "rollback", "Mochi")[2]
    assert "answers with tiny-2" in said(capsys, "assistants", "rollback", "Mochi", "--to", "2")[2]
    assert said(capsys, "assistants", "rollback", "Mochi", "--to", "9")[0] == 1
    out = said(capsys, "assistants", "show", "Mochi")[1]
    assert "in service" in out
    assert "Be brief." in out

    with Store.open(home) as store:
        store.conversations.create(store.assistants.named("Mochi").id)
    code, _, err = said(capsys, "assistants", "remove", "Mochi")
    assert (code, "(1)" in err, "--yes" in err) == (1, True, True)
    assert said(capsys, "assistants", "remove", "Mochi", "--yes")[0] == 0
    code, _, err = said(capsys, "assistants", "show", "Mochi")
    assert (code, "There is no assistant Mochi" in err) == (1, True)


def test_a_key_is_printed_alone_listed_bounded_and_revoked(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No API keys" in said(capsys, "keys", "list")[2]
    assert danlu("assistants", "create", "Mochi", "tiny1") == 0
    capsys.readouterr()
    words = ("--assistant", "Mochi", "--requests-per-minute", "5", "--tokens-per-day", "2000", "--days", "30")
    code, out, err = said(capsys, "keys", "create", "website", *words)
    secret = out.strip()
    assert (code, "callers with a key only" in err) == (0, True)
    with Store.open(home) as store:
        key = KeyRing(store).check(secret)
        assert (key.assistants, key.requests_per_minute, key.tokens_per_day) == (("Mochi",), 5, 2000)
        KeyRing(store).used(key.id, prompt_tokens=12345, completion_tokens=6)
    listed = said(capsys, "keys", "list")[1]
    assert "2,000 tokens/day" in listed
    assert secret not in listed
    assert "12,345" in said(capsys, "keys", "usage")[1]
    (used,) = json.loads(said(capsys, "keys", "usage", "--json")[1])["usage"]
    assert (used["key"], used["requests"], used["completion_tokens"]) == ("website", 1, 6)
    assert said(capsys, "keys", "create", "website")[0] == 1
    assert said(capsys, "keys", "create", "b", "--assistant", "nobody")[0] == 1
    assert said(capsys, "keys", "create", "b", "--days", "0")[0] == 2
    assert said(capsys, "keys", "revoke", "website")[0] == 0
    assert "revoked" in said(capsys, "keys", "list")[1]
    assert "There is no key any more" in said(capsys, "keys", "remove", "website")[2]
    assert said(capsys, "keys", "revoke", "website")[0] == 1


def test_a_key_that_is_too_short_is_refused_and_not_shown(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = said(capsys, "serve", "tiny1", "--api-key", "short")
    assert (code, "short" in err.replace("shorter", "")) == (2, False)
    monkeypatch.setenv("DANLU_API_KEY", "s3cr3t")
    code, _, err = said(capsys, "assistants", "list")
    assert (code, "DANLU_API_KEY" in err, "s3cr3t" in err) == (2, True, False)
