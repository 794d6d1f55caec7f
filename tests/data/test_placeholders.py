"""Placeholders: found, filled, and told from rows that are about braces."""

from __future__ import annotations

import pytest

from danlu.data.check import check_source
from danlu.data.datasets import DatasetLibrary, read_dataset
from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.errors import DataError
from tests.data.files import write_json_lines
from tests.data.formats.reading_rows import assistant, talk, user

PERSONA = [
    {"instruction": "Who are you?", "output": "I am {{name}}, made by {{ author }}."},
    {"instruction": "你是谁？", "output": "我是{{name}}。"},
    {"instruction": "Hello {{name}}!", "output": "Hello."},
]


def answer(text: str) -> dict[str, str]:
    return {"instruction": "Say it.", "output": text}


def report_of(tmp_path, rows, **reading):
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    return check_source(Source(path, Reading(**reading), "rows"))


def found(report) -> dict[str, str]:
    return {item.code: item.message for item in report.problems if item.code.startswith("formats.placeholder")}


def test_the_check_names_all_of_them_with_their_rows_and_how_to_fill_them_in(tmp_path):
    report = report_of(tmp_path, PERSONA)
    assert "{{name}} (3), {{ author }} (1)" in found(report)["formats.placeholders"]
    (problem,) = [item for item in report.problems if item.code == "formats.placeholders"]
    assert (problem.severity, problem.row) == ("error", 1)
    assert '--fill name="…" --fill author="…"' in problem.fix
    assert "data.fill: {name: …, author: …}" in problem.fix
    assert report.usable == 3


def test_nothing_with_an_open_placeholder_is_registered_or_learned(tmp_path):
    path = write_json_lines(tmp_path / "rows.jsonl", PERSONA)
    library = DatasetLibrary(tmp_path / "library")
    for attempt in (lambda: library.add(path, "rows"), lambda: library.register(str(path)), lambda: read_dataset(path)):
        with pytest.raises(DataError, match=r"row 1 \(line 1\): .*--fill name") as caught:
            attempt()
        assert "{name: …, author: …}" in caught.value.message("zh")
    assert library.list() == []


def test_what_is_registered_is_filled_in_and_says_how(tmp_path):
    library = DatasetLibrary(tmp_path / "library")
    reading = Reading(fill={"name": "Mochi", "Author": "Bamboo House"})
    made = library.add(write_json_lines(tmp_path / "rows.jsonl", PERSONA), "rows", reading)
    assert made.reading == reading
    said = [item.answer for item in library.open("rows").conversations]
    assert said == ["I am Mochi, made by Bamboo House.", "我是Mochi。", "Hello."]
    assert library.open("rows").conversations[2].question == "Hello Mochi!"


def test_names_without_braces_and_in_capitals_are_the_same_names(tmp_path):
    rows = [answer("I am <NAME>."), answer("I am {{NAME}} of <AUTHOR>.")]
    assert "<NAME> (2), <AUTHOR> (1)" in found(report_of(tmp_path, rows))["formats.placeholders"]
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    read = read_dataset(path, Reading(fill={"name": "Mochi", "author": "Bo"}))
    assert [item.answer for item in read.conversations] == ["I am Mochi.", "I am Mochi of Bo."]


def test_they_are_found_in_messages_texts_and_judged_answers(tmp_path):
    rows = [
        talk(user("Hi {{name}}"), assistant("b")),
        {"text": "{{name}}"},
        {"prompt": "a", "chosen": "I am {{name}}", "rejected": "b"},
        {"question": "Who is {{name}}?"},
    ]
    for row in rows:
        assert list(found(report_of(tmp_path, [row]))) == ["formats.placeholders"]


def test_a_column_that_is_not_read_may_hold_anything(tmp_path):
    assert found(report_of(tmp_path, [answer("b") | {"note": "{{name}}"}] * 2)) == {}


def test_kept_on_purpose_they_are_learned_as_they_are(tmp_path):
    path = write_json_lines(tmp_path / "rows.jsonl", PERSONA)
    for reading in (Reading(fill_none=True), Reading(fill={"name": "{{name}}", "author": "{{author}}"})):
        read = read_dataset(path, reading)
        assert read.conversations[1].answer == "我是{{name}}。"
        assert found(report_of(tmp_path, PERSONA, **reading.model_dump())) == {}


CODE = [
    "Write `{{ title }}` where it is to stand.",
    "```html\n<p>{{ name }}</p>\n```",
    "{% for x in xs %} {{ x }} {% endfor %}",
    "In Jinja a variable is {{ name }}.",
    "Vue 模板语法里写 {{ name }}。",
    "<h1>{{ name }}</h1>",
    "{{#each items}}{{name}}{{/each}}",
    r"\frac{{a}}{{b}}",
    "Use a Helm chart with {{ name }}.",
    "Dear {{name}}, this template can be sent to every customer.",
]


@pytest.mark.parametrize("text", CODE)
def test_rows_about_code_and_templates_are_counted_and_left_as_they_are(tmp_path, text):
    rows = [answer(text), answer(text + " ")]
    assert list(found(report_of(tmp_path, rows))) == ["formats.placeholder_code"]
    assert "2 rows" in found(report_of(tmp_path, rows))["formats.placeholder_code"]
    path = write_json_lines(tmp_path / "rows.jsonl", [*rows, *PERSONA])
    read = read_dataset(path, Reading(fill={"name": "Mochi", "author": "Bo", "title": "x", "x": "y"}))
    assert read.conversations[0].answer == text
    assert read.conversations[2].answer == "I am Mochi, made by Bo."


@pytest.mark.parametrize(
    "text",
    [
        r"x_{{i}} and y^{{j}}", "${{ token }}", "{{{raw}}}", "{{ user.name }}", "{{ name|upper }}",
        "{{}}", "{{ }}", "{{1}}", '{"a": {"b": {}}}', "<name>", "<Name>", "< NAME >", "{name}", "set {{1, 2}, {3}}",
    ],
)  # fmt: skip
def test_other_braces_are_no_placeholders_at_all(tmp_path, text):
    assert found(report_of(tmp_path, [answer(text)] * 3)) == {}


def test_a_single_one_that_nobody_knows_is_a_warning_and_is_learned_as_it_is(tmp_path):
    rows = [answer("Escape it as {{weather}}."), answer("b")]
    report = report_of(tmp_path, rows)
    assert list(found(report)) == ["formats.placeholder"]
    (problem,) = [item for item in report.problems if item.code == "formats.placeholder"]
    assert (problem.severity, problem.row) == ("warning", 1)
    read = read_dataset(write_json_lines(tmp_path / "rows.jsonl", rows))
    assert read.conversations[0].answer == "Escape it as {{weather}}."
    assert "formats.placeholders" in found(report_of(tmp_path, [*rows, answer("Or {{weather}}?")]))


@pytest.mark.parametrize("name", ["name", "author", "company", "名字", "bot_name"])
def test_a_single_one_that_everybody_knows_must_be_filled_in(tmp_path, name):
    assert list(found(report_of(tmp_path, [answer(f"I am {{{{{name}}}}}.")]))) == ["formats.placeholders"]


def test_two_beside_each_other_are_both_found(tmp_path):
    read = read_dataset(
        write_json_lines(tmp_path / "rows.jsonl", [answer("{{name}}{{author}}")]),
        Reading(fill={"name": "Mo", "author": "chi"}),
    )
    assert read.conversations[0].answer == "Mochi"
