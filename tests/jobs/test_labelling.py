"""Two rounds with a tiny model: learn from answers, answer questions, learn from both. All real but the size."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional

from danlu.data.split import normalise
from danlu.errors import DataError, RecipeError, TrainingError
from danlu.evaluation.generate import answer_all
from danlu.jobs import pipeline, preparing
from danlu.jobs.forge_order import LabelOrder
from danlu.jobs.labelling import label
from danlu.jobs.messages import Advance, Labelled
from danlu.models.messages import Message
from danlu.planning import semi_rules
from danlu.settings import Home
from danlu.training.forward import LossModel
from danlu.training.objectives import TokenMean
from tests.data.files import question_rows, write_json_lines, write_texts
from tests.jobs.homes import assert_same_bits, quiet, recipe, stopped_and_resumed, write_material

QUESTIONS = [
    {"instruction": "What is number 3?"},
    {"question": "What is number 40?"},
    {"instruction": "Say", "input": "tea", "system": "Be short.", "history": [["Hi", "Hello"]]},
]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A home with a finished run that has learned twelve rows, the model, the rows and questions."""
    folder = tmp_path_factory.mktemp("first")
    home = Home(folder / "home").make()
    model, rows = write_material(folder)
    # A random model learns nothing by heart with an adapter.
    more = ("method=full", "data.holdout=0", "train.learning_rate=3e-3", "train.num_train_epochs=40", "eval.every=100")
    wanted = recipe(model, rows, *more)
    prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
    pipeline.train(prepared, quiet, lambda: False)
    return home, model, rows, write_json_lines(folder / "asked.jsonl", QUESTIONS), prepared.run.name


def labelled(first, out, told=quiet, **order):
    home, _, _, asked, run = first
    prepared = preparing.reopen(home, run, quiet)
    wanted = LabelOrder(**{"questions": str(asked), "out": out, "samples": 4, "temperature": 0.7, **order})
    return prepared, label(prepared, wanted, told)


def test_a_finished_run_answers_questions_with_what_speaks_for_each_answer(first, tmp_path):
    told = []
    prepared, found = labelled(first, tmp_path / "out.jsonl", told.append)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["instruction"] for row in rows] == ["What is number 3?", "What is number 40?", "Say"]
    assert rows[2]["history"] == [["Hi", "Hello"]]
    assert (rows[2]["input"], rows[2]["system"]) == ("tea", "Be short.")
    for row, item in zip(rows, found, strict=True):
        assert len(row["samples"]) == 4
        assert row["output"] in row["samples"]
        assert row["weight"] == semi_rules.label_weight(row["agreement"], row["confidence"])
        assert row["accepted"] == (item.doubt is None)
        sure = row["agreement"] >= semi_rules.LEAST_AGREEMENT and row["confidence"] >= semi_rules.LEAST_CONFIDENCE
        assert not row["accepted"] or sure
    greedy = answer_all(prepared.model, prepared.chat_format, [[Message("user", "What is number 3?")]])
    assert rows[0]["samples"][0] == greedy[0]
    (said,) = [message for message in told if isinstance(message, Labelled)]
    assert said.accepted + sum(said.doubts.values()) == 3
    assert [message.done for message in told if isinstance(message, Advance)][-1] == 100

    labelled(first, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_confidence_is_the_geometric_mean_of_the_token_probabilities(first, tmp_path):
    prepared, found = labelled(first, tmp_path / "out.jsonl")
    assert all(item.output for item in found)
    for item in found:
        prompt = prepared.chat_format.prompt_ids(item.question.messages)
        tokenizer = prepared.chat_format.tokenizer
        answer = tokenizer(item.output + "<|im_end|>", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logits = prepared.model.eval()(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        mean = functional.cross_entropy(logits, ids[0, len(prompt) :])
        assert item.confidence == pytest.approx(math.exp(-float(mean)), abs=2e-4)


def write_reviewed(path):
    rows = [
        {"instruction": f"What is number {n}?", "output": f"It is {n}.", "weight": 0.25 * (1 + n % 3), "accepted": True}
        for n in range(30, 36)
    ]
    copies = [{**rows[0], "instruction": row["instruction"]} for row in question_rows(12)]
    return write_json_lines(path, [*rows, {**rows[0], "output": "", "accepted": False}, *copies])


def test_both_files_are_learned_and_weights_change_the_loss_as_a_plain_computation_says(first, tmp_path):
    home, model, rows, _, _ = first
    both = f"data.train=[{rows},{write_reviewed(tmp_path / 'reviewed.jsonl')}]"
    prepared = preparing.prepare(home, recipe(model, rows, both), quiet, predict_cost=False)
    aside = {normalise(item.question) for item in prepared.split.holdout}
    assert len(aside) == 3
    assert not any(item.pseudo for item in prepared.split.holdout)
    assert not aside & {normalise(item.question) for item in prepared.split.train}
    said = " ".join(notice.text("en") for notice in prepared.plan.notices)
    assert "15 answers that are learned were written by a model" in said
    assert "1 answers of a model were not accepted" in said
    assert "3 answers of a model are left out because their questions are kept aside" in said
    assert sorted({example.weight for example in prepared.examples}) == [0.25, 0.5, 0.75, 1.0]

    losses, objective = LossModel(prepared.model), TokenMean()
    weighed, total = 0.0, 0.0
    for example in prepared.examples:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logits = prepared.model.eval()(input_ids=ids).logits[0, :-1].float()
        each = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        weighed += example.weight * float(each[torch.tensor(example.learn[1:])].sum())
        total += example.weight * example.supervised
    with torch.no_grad():
        pieces = objective.pieces(losses, prepared.examples, 256)
        found = sum(float(objective.loss(losses, piece, prepared.examples)) for _, piece in pieces)
    assert found == pytest.approx(weighed / total, rel=1e-4)


def test_the_file_is_learned_as_it_is_beside_the_rows_and_beside_texts(first, tmp_path):
    home, model, rows, _, _ = first
    out = tmp_path / "reviewed.jsonl"
    _, found = labelled(first, out)
    accepted = [item for item in found if item.doubt is None]
    assert accepted, "a question that the run has learned"
    corpus = write_texts(tmp_path / "corpus.jsonl", 6)
    for more in ([], ["objective=semi", f"data.unlabelled={corpus}"]):
        wanted = recipe(model, rows, f"data.train=[{rows},{out}]", "data.holdout=0", *more)
        prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
        answers = [example for example in prepared.examples if not example.text]
        assert [example.weight for example in answers] == [1.0] * 12 + [item.weight for item in accepted]
        report = pipeline.train(prepared, quiet, lambda: False)
        assert report.status == "finished"
        assert math.isfinite(report.train_loss)


def test_a_stopped_second_round_ends_with_the_same_bits(first, tmp_path):
    home, model, rows, _, _ = first
    both = f"data.train=[{rows},{write_reviewed(tmp_path / 'reviewed.jsonl')}]"
    wanted = recipe(model, rows, both, "train.num_train_epochs=1", "eval.every=100")
    whole = preparing.prepare(home, wanted, quiet, predict_cost=False)
    report = pipeline.train(whole, quiet, lambda: False)
    again, resumed = stopped_and_resumed(home, wanted, after=4)
    assert list(again.examples) == list(whole.examples)
    assert resumed.train_loss == report.train_loss
    assert_same_bits(whole.run, again.run)


def test_what_does_not_go_together_is_refused_with_a_remedy(first, tmp_path):
    home, model, rows, asked, run = first
    reviewed = write_reviewed(tmp_path / "reviewed.jsonl")
    with pytest.raises(DataError, match="danlu pseudo-label RUN --questions"):
        preparing.prepare(home, recipe(model, asked), quiet)
    with pytest.raises(DataError, match="danlu pseudo-label RUN --questions"):
        preparing.prepare(home, recipe(model, rows, "objective=semi", f"data.unlabelled={asked}"), quiet)
    with pytest.raises(RecipeError, match=r"18 rows have a weight.*label_smoothing_factor=0"):
        preparing.prepare(home, recipe(model, reviewed, "train.label_smoothing_factor=0.1"), quiet)
    with pytest.raises(DataError, match="must be answers of people"):
        preparing.prepare(home, recipe(model, rows, f"data.holdout={reviewed}"), quiet)
    with pytest.raises(DataError, match="must be answers of people"):
        preparing.reopen(home, run, quiet, data=str(reviewed))
    refused = [{"instruction": "Who?", "output": "", "weight": 0, "accepted": False}]
    with pytest.raises(DataError, match="None of the 1 answers here"):
        preparing.prepare(home, recipe(model, write_json_lines(tmp_path / "none.jsonl", refused)), quiet)
    with pytest.raises(DataError, match="does not hold questions alone"):
        labelled(first, tmp_path / "out.jsonl", questions=str(rows))
    long = write_json_lines(tmp_path / "long.jsonl", [{"question": "tea " * 800}])
    with pytest.raises(DataError, match=r"row 1 .*no room is left"):
        labelled(first, tmp_path / "out.jsonl", questions=str(long))
    fresh = preparing.prepare(home, recipe(model, rows), quiet, predict_cost=False)
    order = LabelOrder(questions=str(asked), out=tmp_path / "out.jsonl", samples=2, temperature=0.7)
    with pytest.raises(TrainingError, match="has not finished"):
        label(fresh, order, quiet)
    assert not (tmp_path / "out.jsonl").exists()


def test_answers_of_a_model_alone_are_learned_and_nothing_is_measured_on_them(first, tmp_path):
    home, model, _, _, _ = first
    reviewed = write_reviewed(tmp_path / "reviewed.jsonl")
    prepared = preparing.prepare(home, recipe(model, reviewed, "data.holdout=auto"), quiet, predict_cost=False)
    assert (list(prepared.heldout), list(prepared.probes)) == ([], [])
    assert any(item.reason == "planning.holdout_pseudo" for item in prepared.plan.decisions)
