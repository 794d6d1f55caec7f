"""The report: one HTML file that needs nothing else, tells the bad news too, and cannot be written into by answers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from danlu.evaluation.report import write_report
from danlu.evaluation.result import Continuation, GeneralProof, HeldoutProof, ProbeItem, ProbeProof, Proof
from danlu.events import Eval, LoggedEvent, Step

EVIL = '<script src="http://evil.example/x.js">alert(1)</script><img onerror="a" src=x>&"\''


def proof(*, heldout=True, after=2.0, unseen=True, answer="I am Mochi.") -> Proof:
    items = (
        ProbeItem(question="Who are you?", before="", after=answer, passed_before=False, passed_after=True),
        ProbeItem(question=EVIL, before=EVIL, after="{{ title }} {% raw %}", passed_before=True, passed_after=False),
    )
    measured = HeldoutProof(n=5, loss_before=3.0, loss_after=1.5)
    none = HeldoutProof(n=0, loss_before=None, loss_after=None)
    return Proof(
        heldout=measured if heldout else none,
        probes=ProbeProof(n=2, pass_before=1, pass_after=1, items=items),
        general=GeneralProof(n=3, loss_before=2.0, loss_after=after, kl=0.25),
        unseen=unseen,
    )


def events() -> list[LoggedEvent]:
    steps = [
        Step(step=n, epoch=1, loss=4 / n, learning_rate=1, grad_norm=1, tokens=1, supervised_tokens=1, seconds=1)
        for n in (1, 2, 4)
    ]
    happened = [Eval(step=0, heldout_loss=2.0, best=False), *steps]
    return [LoggedEvent(seq=n, time="t", event=event) for n, event in enumerate(happened, start=1)]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(params=["en", "zh"])
def lang(request):
    return request.param


def written(tmp_path, made: Proof, lang="en", happened=()) -> str:
    path = tmp_path / "report.html"
    write_report(path, made, "run <1>", list(happened), lang)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_anywhere_and_runs_nothing(tmp_path, lang):
    page = Page(written(tmp_path, proof(), lang, events()))
    assert page.open == [], "every tag is closed"
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in {"src", "href", "srcset", "action", "data"}
        assert not name.startswith("on")
        assert "http" not in (value or "")
    style = re.search("<style>(.*?)</style>", written(tmp_path, proof(), lang), re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_answers_and_names_are_text_and_nothing_else(tmp_path, lang):
    text = written(tmp_path, proof(), lang, events())
    assert "<script" not in text
    assert "&lt;script src=&#34;http://evil.example/x.js&#34;&gt;" in text
    assert "{{ title }} {% raw %}" in text
    assert "run &lt;1&gt;" in text


def test_the_page_is_in_the_readers_language(tmp_path):
    english, chinese = written(tmp_path, proof(), "en"), written(tmp_path, proof(), "zh")
    assert '<html lang="en">' in english
    assert '<html lang="zh">' in chinese
    assert "Every question, before and after" in english
    visible = re.sub("<style>.*?</style>|<[^>]*>", " ", chinese.replace("&#34;", '"'), flags=re.DOTALL)
    assert not re.search(r"\b(before|after|loss|passed|question)\b", visible.replace("Who are you?", ""), re.IGNORECASE)


def test_the_figures_are_there(tmp_path):
    text = written(tmp_path, proof(), "en", events())
    for figure in ("1 → 1", "/ 2", "3.00 → 1.50", "n = 5", "2.00 → 2.00", "KL 0.25"):
        assert figure in text
    points = re.findall('points="([^"]*)"', text)
    assert points == ["160.0,0.0 320.0,90.0 640.0,135.0", "0.0,90.0"]
    assert "from 0 to 4.00 over 4 steps" in text


def test_without_events_there_is_no_curve_and_without_held_out_rows_no_such_figure(tmp_path):
    text = written(tmp_path, proof(heldout=False))
    assert "<svg" not in text
    assert "Held-out loss" not in text


@pytest.mark.parametrize(
    ("after", "word"), [(2.0, "as before"), (2.09, "as before"), (2.2, "worse"), (1.0, "as before")]
)
def test_the_verdict_says_what_was_forgotten(after, word):
    assert word in proof(after=after).verdict("en")


def test_the_verdict_says_what_was_asked_and_how_it_went():
    verdict = proof().verdict("en")
    assert verdict.startswith("Of 2 questions it has never seen, it answered 1 rightly before training and 1 after.")
    assert "went from 3.00 to 1.50" in verdict
    assert proof(unseen=False).verdict("en").startswith("Of 2 questions of the data")
    assert "kept aside" not in proof(heldout=False).verdict("en")
    assert "2" in proof().verdict("zh")


def test_a_proof_survives_json():
    assert Proof.model_validate_json(proof().model_dump_json()) == proof()


def test_a_model_that_moved_far_is_not_said_to_fare_as_before():
    general = GeneralProof(n=12, loss_before=1.34, loss_after=0.87, kl=1.15)
    verdict = proof().model_copy(update={"general": general}).verdict("en")
    assert "changed a lot (KL 1.15" in verdict
    assert "as before" not in verdict


def text_proof(*, learned=False, probes=0) -> Proof:
    items = (ProbeItem(question="Who?", before="", after="I", passed_before=False, passed_after=True),) * probes
    return Proof(
        heldout=HeldoutProof(n=4, loss_before=3.0, loss_after=2.0, texts=True, learned=learned),
        probes=ProbeProof(n=probes, pass_before=0, pass_after=probes, items=items),
        general=GeneralProof(n=30, loss_before=2.0, loss_after=2.0, kl=0.1),
        unseen=True,
        continuations=(Continuation(opening=EVIL, before="the <old> way", after=""),),
    )


def test_of_texts_perplexity_and_continuations_are_shown_and_no_empty_questions(tmp_path, lang):
    text = written(tmp_path, text_proof(), lang, events())
    assert Page(text).open == []
    for figure in ("20.1 → 7.4", "3.00 → 2.00", "the &lt;old&gt; way", "&lt;script src"):
        assert figure in text
    for left_out in ("/ 0", "0 → 0", "60 %", "60%", "None"):
        assert left_out not in text


def test_what_was_learned_is_not_called_kept_aside(tmp_path):
    verdict = text_proof(learned=True).verdict("en")
    assert verdict.startswith(
        "Nothing was kept aside; on the text that was learned the perplexity went from 20.1 to 7.4"
    )
    text = written(tmp_path, text_proof(learned=True))
    assert "Perplexity on the text learned" in text
    assert "Held-out" not in text


def test_questions_asked_beside_texts_are_shown_too(tmp_path):
    made = text_proof(probes=1)
    assert made.verdict("en").startswith("Of 1 questions it has never seen")
    text = written(tmp_path, made)
    assert "0 → 1" in text
    assert "Every question, before and after" in text


def test_a_perplexity_beyond_all_numbers_is_still_a_number():
    held = HeldoutProof(n=1, loss_before=5000.0, loss_after=None)
    assert held.perplexity_before == pytest.approx(5.18e21, rel=0.01)
    assert held.perplexity_after is None


def test_a_proof_of_texts_survives_json_and_an_older_proof_is_read():
    made = text_proof()
    assert Proof.model_validate_json(made.model_dump_json()) == made
    older = proof().model_dump(mode="json", exclude={"continuations": True, "heldout": {"texts", "learned"}})
    assert Proof.model_validate(older) == proof()
