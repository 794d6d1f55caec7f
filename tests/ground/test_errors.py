"""Errors say what happened, where, and what to do, on one line and as a problem document, in both languages."""

from __future__ import annotations

import inspect

import pytest

from danlu import errors
from danlu.errors import BusyError, DanluError, DataError, MachineError, UsageError
from danlu.i18n import catalogue, match_language, t, use_language

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DanluError)]


def test_a_message_is_one_line_of_where_what_and_fix():
    error = DataError("data.field_missing", "persona.json, row 3", field="output")
    assert error.message("en") == (
        "persona.json, row 3: The field “output” is missing. "
        "Add it; every row needs instruction (the question) and output (the answer)."
    )
    assert error.message("zh").startswith("persona.json, row 3: 缺少“output”字段")


def test_a_line_break_in_a_value_does_not_break_the_line():
    error = DataError("data.unreadable", "a\nb.json", reason="first\nsecond")
    assert "\n" not in error.message("en")
    assert "first second" in error.message("en")


def test_the_problem_document_holds_everything_a_page_needs():
    problem = MachineError("ground.disk_low", "/data", needed="2 GB", free="1 GB").problem("en")
    assert problem == {
        "type": "about:blank#ground.disk_low",
        "title": "Not enough room on the disk: 2 GB needed, 1 GB free.",
        "status": 507,
        "detail": (
            "/data: Not enough room on the disk: 2 GB needed, 1 GB free. "
            "Free some space, or choose another disk with --home DIR."
        ),
        "code": "ground.disk_low",
        "where": "/data",
        "fix": "Free some space, or choose another disk with --home DIR.",
    }


def test_str_is_the_message_in_the_language_in_force():
    error = DataError("data.missing_file", "x.json")
    with use_language("zh"):
        assert str(error).startswith("x.json: 找不到")
    with use_language("en"):
        assert str(error) == "x.json: There is no such file. Check the path."


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_http_status_and_an_exit_code(kind):
    assert 400 <= kind.status < 600
    assert kind.exit_code == (2 if kind is UsageError else 1)


def test_a_busy_error_carries_its_seconds_into_the_text():
    error = BusyError("serving.busy", retry_after=7, waiting=3)
    assert error.retry_after == 7
    assert "7" in error.fix("en")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("zh_CN.UTF-8", "zh"),
        ("en-GB,en;q=0.8", "en"),
        ("fr-FR,zh;q=0.8,en;q=0.5", "zh"),
        ("fr", None),
        ("", None),
        (None, None),
    ],
)
def test_a_language_tag_finds_its_catalogue(tag, expected):
    assert match_language(tag) == expected


def test_the_environment_chooses_the_language_and_a_request_overrides_it(monkeypatch):
    monkeypatch.setenv("DANLU_LANG", "zh")
    assert t("cli.yes") == catalogue("zh")["cli.yes"]
    with use_language("en"):
        assert t("cli.yes") == "yes"
        with use_language(None):
            assert t("cli.yes") == "yes"
    assert t("cli.yes") == catalogue("zh")["cli.yes"]


def test_an_unknown_key_and_a_missing_value_are_defects():
    with pytest.raises(KeyError):
        t("data.no_such_key")
    with pytest.raises(KeyError):
        t("data.place_line", file="x")
