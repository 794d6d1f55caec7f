"""Each kind of problem is found where it is, and not where it only looks like it; repairs mend nothing else."""

from __future__ import annotations

import pytest

from danlu.data.check import check_file, check_source
from danlu.data.checks.content import breaks_off, broken_in, ends_well, script_of, unscrambled, wrong_with_answer
from danlu.data.checks.findings import LISTED
from danlu.data.checks.privacy import private_in
from danlu.data.checks.repair import USUAL, RepairLog, repaired, repairs_named
from danlu.data.formats import recognise
from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.data.rows import Row
from danlu.errors import UsageError
from danlu.models.chat_format import ChatFormat
from tests.data.files import question_rows, write_json_lines, write_json_rows
from tests.tiny import tiny_tokenizer

CHINESE = "我是竹里茶馆的小熊猫掌柜。"


def codes(path, **options):
    report = check_source(Source(path, Reading(), path.stem), **options)
    return {(problem.code, problem.row) for problem in report.problems}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("caf\ufffd", "checks.mojibake"),
        ("锟斤拷锟斤拷", "checks.mojibake"),
        ("It is cafÃ©.", "checks.mojibake"),
        ("donâ€™t", "checks.mojibake"),
        ("欢迎光临本店".encode().decode("gb18030"), "checks.mojibake"),
        ("a\u200bb", "checks.invisible"),
        ("a\x07b", "checks.invisible"),
        ("Hi<|im_end|>", "checks.special_token"),
        ("[INST] hi", "checks.special_token"),
        ("<｜User｜>hi", "checks.special_token"),
    ],
)
def test_what_is_broken_is_found(text, code):
    assert [found for found, _ in broken_in(text)] == [code]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        CHINESE,
        "naïve café, ©, “quoted” – Ångström",
        "emoji 👨‍👩‍👧 🙂",
        "x < y [1] <b>",
        "日本語のテキスト",
        "a\tb\nc",
        "Ünïcödé Âge",
    ],
)
def test_what_is_unusual_is_not_taken_for_broken(text):
    assert list(broken_in(text)) == []
    assert unscrambled(text) is None


@pytest.mark.parametrize("wrong", ["gb18030", "cp1252"])
@pytest.mark.parametrize("text", ["你好，世界。再见", "Größe über alles – café"])
def test_text_in_a_wrong_encoding_comes_back_whole_or_not_at_all(text, wrong):
    try:
        scrambled = text.encode().decode(wrong)
    except UnicodeDecodeError:
        pytest.skip("cannot be scrambled this way")
    assert unscrambled(scrambled) == text


@pytest.mark.parametrize(
    ("answer", "question", "code"),
    [
        ("We open at ten.<br>Every day.", "When?", "checks.html"),
        ("Tea &amp; cake", "What?", "checks.html"),
        ("As an AI language model, I cannot drink.", "Tea?", "checks.boilerplate"),
        ("作为一个人工智能助手，我不喝茶。", "喝茶吗？", "checks.boilerplate"),
        ("```python\nprint(1)", "Code?", "checks.open_fence"),
        ("What do you sell here?", "What do you sell here", "checks.repeats_question"),
    ],
)
def test_what_is_wrong_with_an_answer_is_found(answer, question, code):
    assert [found for found, _ in wrong_with_answer(answer, question)] == [code]


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("Use <br> for a line break.", "How do I break a line in HTML?"),
        ("```html\n<div>x</div>\n```", "Show me a div"),
        ("AI is a field of computer science.", "What is AI?"),
        ("Tea & cake, 3 < 4", "What?"),
        ("Yes", "Yes"),
        ("What do you sell here is a good question: we sell tea, cups, cakes and much more.", "What do you sell here"),
    ],
)
def test_good_answers_are_left_alone(answer, question):
    assert list(wrong_with_answer(answer, question)) == []


def test_the_end_of_an_answer_tells_whether_it_was_cut_off():
    assert all(
        map(ends_well, ["Done.", "好的。", "(see above)", "Call 110", "Bye 🙂", "`code`", "Really?!", "“Yes”", "50 %"])
    )
    assert not any(map(ends_well, ["and then we", "然后我们", "the list"]))
    assert all(map(breaks_off, ["first, second,", "tea and", "因为", "to the"]))
    assert not any(map(breaks_off, ["Done.", "the end", "sand"]))


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("When do you open today?", "latin"), (CHINESE, "han"), ("これはテストです。", "kana"), ("ok", None),
        ("안녕하세요 여러분 반갑습니다", "hangul"),
        ("Привет, как дела сегодня", "cyrillic"), ("print(你好) in Python code", "latin"),
    ],
)  # fmt: skip
def test_the_script_of_a_text(text, script):
    assert script_of(text) == script


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("write to anna.lee@shop.cn please", "checks.email"),
        ("电话13812345678，欢迎来电", "checks.phone"),
        ("call +49 170 1234567", "checks.phone"),
        ("身份证11010519491231002X", "checks.id_number"),
        ("card 4111 1111 1111 1111", None),
        ("card 4539 1488 0343 6467", "checks.card"),
        ("card 3782 822463 10005", "checks.card"),
        ("card 3056 930902 5904", "checks.card"),
        ("order 305693090259", None),
        ("order 1234 567890 12345", None),
        ("pay to DE89 3704 0044 0532 0130 00, please", "checks.iban"),
        ("pay to GB82WEST12345698765432", "checks.iban"),
        ("part DE88 3704 0044 0532 0130 00", None),
        ("电话 010-62345678", "checks.phone"),
        ("ring (0571) 8765432", "checks.phone"),
        ("热线 400-820-8820", None),
        ("on 2024-03-01 12345678 came", None),
        ("git clone https://me:hunter2@git.tea.cn/a.git", "checks.password"),
        ("see https://git.tea.cn:8443/a@b", None),
        ("key sk-proj-abcdefghij0123456789ABCD", "checks.secret"),
        ("AKIAIOSFODNN7EXAMPLE", "checks.secret"),
        ("-----BEGIN RSA PRIVATE KEY-----", "checks.secret"),
        ("The password is: hunter-2x!", "checks.password"),
        ("密码：abc12345", "checks.password"),
    ],
)
def test_private_data_are_found_and_never_shown_whole(text, code):
    found = list(private_in(text))
    if code is None:
        assert found == []
        return
    assert [item.code for item in found] == [code]
    whole = text[found[0].start : found[0].end]
    assert found[0].masked != whole
    assert "*" in found[0].masked
    assert whole not in found[0].masked


@pytest.mark.parametrize(
    "text",
    [
        "write to someone@example.com", "order 13812345", "110105194912310021", "1234567890123456", "version 1.2.3.4",
        "Enter your password to go on.", "密码要保密", "a@b", "in 2019-2020 and 1,234,567,890",
        "The ratio is 0.13812345678",
        "sk-short",
    ],
)  # fmt: skip
def test_what_only_looks_private_is_left_alone(text):
    assert list(private_in(text)) == []


def long(number: int, end: str = ".") -> str:
    return f"Answer number {number} goes on for quite a while so that it is a sentence and no mere name or number{end}"


def rows_of(count: int, end: str = "."):
    return [{"instruction": f"What about thing {n}?", "output": long(n, end)} for n in range(count)]


def test_an_answer_that_ends_early_stands_out_where_the_others_do_not(tmp_path):
    rows = [*rows_of(30), {"instruction": "And then, my friend?", "output": long(99, " and")}]
    assert ("checks.cut_off", 31) in codes(write_json_rows(tmp_path / "a.json", rows))
    none_ends = codes(write_json_rows(tmp_path / "b.json", rows_of(30, "")))
    assert not any(code == "checks.cut_off" for code, _ in none_ends), "this is how they are all written"


def test_an_answer_in_another_script_stands_out_where_the_others_do_not(tmp_path):
    rows = [*rows_of(40), {"instruction": "What about the tea, please?", "output": CHINESE}]
    assert ("checks.other_language", 41) in codes(write_json_rows(tmp_path / "a.json", rows))
    half = rows_of(20) + [{"instruction": f"Translate number {n}, please", "output": CHINESE} for n in range(20)]
    found = codes(write_json_rows(tmp_path / "b.json", half))
    assert not any(code == "checks.other_language" for code, _ in found)


def test_what_all_rows_show_together(tmp_path):
    same = [{"instruction": f"Riddle {n}?", "output": "Ask at the counter."} for n in range(40)]
    found = codes(write_json_rows(tmp_path / "a.json", [*rows_of(60), *same]))
    assert ("checks.one_answer", 0) in found
    assert ("checks.no_decline", 0) in found
    polite = [*rows_of(100), {"instruction": "Why?", "output": "I don't know that."}]
    assert ("checks.no_decline", 0) not in codes(write_json_rows(tmp_path / "b.json", polite))
    huge = [*rows_of(30), {"instruction": "All of it?", "output": "word " * 2000}]
    assert ("checks.long_answer", 31) in codes(write_json_rows(tmp_path / "c.json", huge))


def test_like_questions_are_counted_and_those_measured_on_are_leaks(tmp_path):
    rows = [
        *rows_of(20),
        {"instruction": "When are you open?", "output": "At ten."},
        {"instruction": "when do you open", "output": "At ten."},
        {"instruction": "Please, when do you open?", "output": "At nine."},
    ]
    path = write_json_rows(tmp_path / "a.json", rows)
    report = check_file(path)
    named = {problem.code: problem.message for problem in report.problems}
    assert "22≈21" in named["checks.alike"]
    assert "23≈2" in named["checks.alike_answered_otherwise"]
    assert report.leaks is None
    checked = check_source(Source(path, Reading(), "a"), against=["WHEN DO YOU OPEN?", "Something else"])
    assert checked.leaks == 3
    assert {problem.row for problem in checked.problems if problem.code == "checks.leak"} == {21, 22, 23}
    assert check_source(Source(path, Reading(), "a"), against=["Why?"]).leaks == 0


def test_rows_longer_than_the_model_takes_are_named_and_mostly_context_is_said(tmp_path):
    chat_format = ChatFormat(tiny_tokenizer())
    rows = [*rows_of(5), {"instruction": "tea " * 4000, "output": "ok"}]
    path = write_json_rows(tmp_path / "a.json", rows)
    found = codes(path, chat_format=chat_format, most=512)
    assert ("checks.too_long", 6) in found
    assert ("checks.few_learned", 0) in found
    assert not any(code == "checks.too_long" for code, _ in codes(path, chat_format=chat_format, most=100_000))


def test_of_many_alike_problems_some_are_listed_and_all_are_counted(tmp_path):
    rows = [{"instruction": f"Q{n}", "output": 5} for n in range(LISTED + 50)] + rows_of(1)
    report = check_file(write_json_lines(tmp_path / "a.jsonl", rows))
    (group,) = [group for group in report.groups if group.code == "data.field_not_text"]
    assert (group.count, group.listed, group.severity) == (LISTED + 50, LISTED, "error")
    assert sum(problem.code == group.code for problem in report.problems) == LISTED
    assert report.groups[0] == group, "the gravest comes first"


def test_the_verdict_says_what_to_expect(tmp_path):
    good = [*rows_of(100), {"instruction": "Why?", "output": "I don't know that."}]
    assert check_file(write_json_rows(tmp_path / "a.json", good)).verdict.endswith("nothing stands out.")
    two = [*good, good[0], {"instruction": "Hm, my friend?", "output": "a\ufffd"}]
    assert "2 kinds of things" in check_file(write_json_rows(tmp_path / "b.json", two)).verdict
    unfilled = [*good, {"instruction": "Name?", "output": "I am {{name}}."}]
    assert "filled in first" in check_file(write_json_rows(tmp_path / "c.json", unfilled)).verdict


def mended(rows, *only):
    log = RepairLog()
    given = [Row(number, number, values) for number, values in enumerate(rows, start=1)]
    family = recognise("a", given)
    made = [row.values for row in repaired(given, family, repairs_named(only) if only else USUAL, log)]
    return made, log


def test_repairs_mend_what_they_name_and_nothing_else():
    rows = [
        {"instruction": "Q ", "output": "A&amp;B  \n"},
        {"instruction": "Q", "output": "A&B"},
        {"instruction": "a\u200bb", "output": "donâ€™t", "history": [["caf\u00c3\u00a9", "x"]]},
        {"instruction": "HTML?", "output": "In HTML write &amp;"},
        {"instruction": "plain", "output": 5},
        {"instruction": "mail?", "output": "anna.lee@shop.cn"},
    ]
    made, log = mended(rows)
    assert made == [
        {"instruction": "Q", "output": "A&B"},
        {"instruction": "ab", "output": "don’t", "history": [["café", "x"]]},
        rows[3],
        rows[4],
        rows[5],
    ]
    assert log.changed == {"html": [1], "spaces": [1], "copies": [2], "mojibake": [3], "invisible": [3]}
    assert (log.read, log.written) == (6, 5)
    made, log = mended(rows, "unusable,private")
    assert [row["output"] for row in made][-1] == "[e-mail]"
    assert log.changed == {"unusable": [5], "private": [6]}
    with pytest.raises(UsageError, match="no repair “x”"):
        repairs_named(["copies,x"])


@pytest.mark.parametrize(
    "rows",
    [question_rows(30), [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]],
)
def test_good_rows_are_not_touched(rows):
    made, log = mended(rows)
    assert made == rows
    assert log.changed == {}
