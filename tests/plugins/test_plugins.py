"""Plug-ins: installed for real, trained with through the command line; broken ones are one line that names them."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from danlu.data.rows import read_rows
from danlu.errors import DataError, PluginError, RecipeError
from danlu.events import Step
from danlu.plugins import installed
from danlu.recipe_file import load_recipe
from danlu.training.forward import LossModel
from danlu.training.optimizers import Optimizers
from danlu.training.plugged import objective_named
from danlu.training.preferences import Reference
from danlu.training.trained import attach, trainable
from tests.cli.conftest import danlu, worker_here  # noqa: F401  fixtures
from tests.jobs.homes import words, write_material
from tests.plugins.conftest import make_visible
from tests.tiny import tiny_model
from tests.training.fitting import assert_bit_equal, examples, run, settings, weights


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def write_faq(path):
    asked = [f"Q: What is number {number}?\nA: It is {number},\n不错\n" for number in range(12)]
    path.write_text("\n" + "".join(asked), encoding="utf-8")
    return path


def write_broken(folder, monkeypatch, group, name, code, value="broken_plugin:Thing"):
    """Write what an installed package leaves: a module and its metadata."""
    folder.mkdir()
    (folder / "broken_plugin.py").write_text(code, encoding="utf-8")
    info = folder / "broken_plugin-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 0.3\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n", encoding="utf-8")
    make_visible(folder, monkeypatch)
    monkeypatch.delitem(importlib.sys.modules, "broken_plugin", raising=False)


def test_a_run_takes_objective_optimizer_and_reader_from_a_package(danlu, example, tmp_path):  # noqa: F811
    model, _ = write_material(tmp_path)
    table = write_faq(tmp_path / "list.faq")
    chosen = words(model, table, "objective=focal", "train.optim=lion", "train.learning_rate=1e-3")
    report = danlu("train", *chosen, "--json").json
    assert report["status"] == "finished"
    assert report["heldout_loss"] < report["heldout_loss_before"]
    plan = json.loads((tmp_path / "home" / "runs" / report["run"] / "plan.json").read_text("utf-8"))
    assert (plan["objective"], plan["settings"]["optim"]) == ("focal", "lion")
    listed = danlu("runs", "show", report["run"])
    assert report["run"] in listed.out


def test_the_example_is_exactly_what_it_says(example):
    model = attach(tiny_model(), settings())
    losses, focal, rows = LossModel(model), objective_named("focal", settings(), Reference.unmeasured(())), examples(6)
    ((_, piece),) = focal.pieces(losses, rows, 1 << 20)
    packed = focal.loss(losses, piece, rows)
    logits, targets = losses.learned_logits(piece)
    chances = torch.softmax(logits, dim=1).gather(1, targets.unsqueeze(1))
    torch.testing.assert_close(packed, (-((1 - chances) ** 2) * chances.log()).mean(), rtol=1e-5, atol=1e-6)
    cut = sum(focal.loss(losses, part, rows) for _, part in focal.pieces(losses, rows, 40))
    torch.testing.assert_close(cut, packed, rtol=1e-5, atol=1e-6)
    packed.backward()
    before = {name: value.detach().clone() for name, value in trainable(model).items()}
    signs = {name: value.grad.sign() for name, value in trainable(model).items()}
    Optimizers(trainable(model), settings(optim="lion", weight_decay=0.0)).step(1e-3)
    for name, value in trainable(model).items():
        torch.testing.assert_close(value.detach(), before[name] - 1e-3 * signs[name])


def test_a_stopped_run_with_a_plugged_optimizer_goes_on_to_the_same_bits(example, tmp_path):
    chosen = settings(optim="lion", learning_rate=1e-3, steps=6)
    run(tmp_path / "whole", chosen)
    seen = []
    stop = {"emit": seen.append, "stop": lambda: isinstance(seen[-1], Step) and seen[-1].step == 3}
    assert run(tmp_path / "parts", chosen, **stop)[0].steps == 3
    run(tmp_path / "parts", chosen, resume=True)
    assert_bit_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_row_of_a_list_keeps_its_line(example, tmp_path):
    rows = read_rows(write_faq(tmp_path / "list.faq"))
    assert [row.index for row in rows] == list(range(1, 13))
    assert (rows[0].line, rows[1].line) == (2, 5), "an answer over two lines"
    assert rows[0].values["instruction"] == "What is number 0?"
    (tmp_path / "gbk.faq").write_bytes("Q: 你\nA: 好\n".encode("gbk"))
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "gbk.faq")
    assert caught.value.key == "data.not_utf8"


def test_doctor_lists_them(danlu, example):  # noqa: F811
    told = json.loads(_any_exit(danlu, "doctor", "--json").out)
    assert {(item["group"], item["name"], item["package"]) for item in told["plugins"]} >= {
        ("danlu.objectives", "focal", "danlu-example-plugin 1.0.0"),
        ("danlu.optimizers", "lion", "danlu-example-plugin 1.0.0"),
        ("danlu.readers", "faq", "danlu-example-plugin 1.0.0"),
    }


def _any_exit(call, *arguments):
    """Call where the exit code depends on what else the machine lacks."""
    try:
        return call(*arguments)
    except AssertionError:
        return call(*arguments, expect=1)


@pytest.mark.parametrize(
    ("word", "close"), [("objective=focl", "focal"), ("objective=sftt", "sft"), ("train.optim=loin", "lion")]
)
def test_a_misspelled_name_is_asked_about_and_the_known_ones_are_listed(example, word, close):
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, ["model=x", "data.train=y", word])
    message = caught.value.message("en")
    assert f"did you mean “{close}”?" in message
    assert "focal" in message or "lion" in message


def test_a_plug_in_that_is_gone_is_said(tmp_path):
    with pytest.raises(PluginError) as caught:
        objective_named("vanished", settings(), Reference.unmeasured(()))
    assert "vanished" in caught.value.message("en")
    with pytest.raises(PluginError):
        Optimizers({"x": torch.nn.Parameter(torch.zeros(2, 2))}, settings(optim="vanished"))


@pytest.mark.usefixtures("worker_here")
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("x = 1", "has no attribute 'Thing'"),
        ("Thing = 5", "is a int, not a class"),
        ("class Thing:\n    def __init__(self, must): ...", "missing 1 required positional argument"),
        ("class Thing:\n    def pieces(self, a, b, c): ...", "has no method loss"),
        (
            "class Thing:\n    def pieces(self, a, b, c): ...\n    def loss(self, a): ...\n",
            "loss does not take 3 arguments",
        ),
    ],
)
def test_a_broken_objective_is_one_line_that_names_its_package(danlu, tmp_path, monkeypatch, code, says):  # noqa: F811
    write_broken(tmp_path / "site", monkeypatch, "danlu.objectives", "thing", code)
    model, data = write_material(tmp_path)
    if says == "has no method loss":
        called = danlu("plan", *words(model, data, "objective=thing"), expect=1)
        assert "broken-plugin 0.3" in called.err
        assert "Traceback" not in called.err
    with pytest.raises(PluginError) as caught:
        objective_named("thing", settings(), Reference.unmeasured(()))
    message = caught.value.message("en")
    assert "broken-plugin 0.3" in message
    assert says in message
    assert "broken-plugin 0.3" in json.loads(danlu("doctor", "--json", expect=1).out)["problems"][0]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Thing:\n    def matches(self, p): ...\n    def rows(self, p): ...", "is not a collection"),
        (
            "class Thing:\n    suffixes = ('.faq',)\n    def matches(self, p): return True\n"
            "    def rows(self, p): yield 1",
            "TypeError",
        ),
    ],
)
def test_a_broken_reader_is_one_line_and_spoils_no_other_file(tmp_path, monkeypatch, code, says):
    write_broken(tmp_path / "site", monkeypatch, "danlu.readers", "thing", code)
    _, data = write_material(tmp_path)
    assert len(read_rows(data)) == 12
    (tmp_path / "x.faq").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        read_rows(tmp_path / "x.faq")
    assert says in caught.value.message("en")
    assert "broken-plugin 0.3" in caught.value.message("zh")


def test_an_optimizer_that_is_none_is_said(tmp_path, monkeypatch):
    write_broken(tmp_path / "site", monkeypatch, "danlu.optimizers", "thing", "def Thing(groups): return 7")
    with pytest.raises(PluginError) as caught:
        Optimizers({"x": torch.nn.Parameter(torch.zeros(2, 2))}, settings(optim="thing"))
    assert "gave a int, not a torch.optim.Optimizer" in caught.value.message("en")


def test_two_packages_with_one_name_are_both_named(example, tmp_path, monkeypatch):
    write_broken(tmp_path / "site", monkeypatch, "danlu.objectives", "focal", "class Thing: ...")
    with pytest.raises(PluginError) as caught:
        installed("danlu.objectives")
    assert "broken-plugin 0.3" in caught.value.message("en")
    assert "danlu-example-plugin 1.0.0" in caught.value.message("en")
