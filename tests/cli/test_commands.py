"""The commands around a run: help, errors, plan, train, runs, eval, doctor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import typer

from danlu.cli.common import duration, split_recipe
from danlu.cli.main import app
from danlu.jobs import pipeline, preparing
from danlu.jobs.runs import RunFolder, Runs
from danlu.settings import Home
from tests.cli.conftest import start
from tests.jobs.homes import quiet, recipe, words

REPORT = {
    "run", "status", "steps", "epochs", "train_loss", "heldout_loss_before", "heldout_loss", "examples_per_second",
    "tokens_per_second", "seconds", "peak_rss_bytes", "plan", "prediction_error", "adapter",
}  # fmt: skip


def only_run(home) -> RunFolder:
    (run,) = Runs(Home(home)).list()
    return run


@pytest.mark.parametrize(("lang", "says"), [("en", "Train a recipe"), ("zh", "训练")])
def test_help_is_in_the_readers_language(home, lang, says, monkeypatch):
    monkeypatch.setenv("DANLU_LANG", lang)
    code = [sys.executable, "-m", "danlu.cli.main", "--help"]
    done = subprocess.run(code, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0
    assert says in done.stdout
    other = {"en": "训练", "zh": "Train a recipe"}[lang]
    assert other not in done.stdout


def test_every_command_has_help(danlu):
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = list(getattr(command, "commands", {}))
        for words_ in [[name], *[[name, sub] for sub in inner]]:
            shown = danlu(*words_, "--help").out
            assert "Usage: " in shown
            assert "--help" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train", "--nonsense"],
        ["train", "lora.r"],
        ["train", "model=m", "lora.r"],
        ["data", "add"],
        ["data", "show", "x", "--row", "0"],
        ["runs", "show"],
        ["models", "pull", "x", "--from", "nowhere"],
    ],
)
def test_wrong_usage_is_exit_code_two_or_a_named_file(danlu, arguments):
    code = 1 if arguments == ["train", "lora.r"] else 2
    called = danlu(*arguments, expect=code)
    assert called.out == ""
    assert called.line.startswith("Error: ")


def test_a_group_alone_shows_its_commands(danlu):
    called = danlu("runs", expect=2)
    assert "resume" in called.err + called.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runs", "show", "nothing"], "no run “nothing”"),
        (["runs", "resume", "nothing"], "no run “nothing”"),
        (["runs", "stop", "nothing"], "no run “nothing”"),
        (["runs", "remove", "nothing"], "no run “nothing”"),
        (["runs", "watch", "nothing"], "no run “nothing”"),
        (["eval", "nothing"], "no run “nothing”"),
        (["chat", "nothing", "-m", "Hi"], "“nothing”"),
        (["train", "nowhere.yaml"], "nowhere.yaml: There is no recipe file"),
        (["train", "model=m"], "does not say “data”"),
        (["train", "model=m", "data.train=a.json", "train.learning_rate=9"], "it must be at most 1"),
        (["train", "model=m", "data.train=a.json", "train.sed=9"], "Did you mean “train.seed”?"),
        (["models", "show", "nothing"], "is not on this machine"),
        (["data", "show", "nothing"], "no data set and no file “nothing”"),
    ],
)
def test_an_error_is_one_line_and_exit_code_one(danlu, arguments, says):
    called = danlu(*arguments, expect=1)
    assert says in called.line
    assert called.line.startswith("Error:")
    assert called.out == ""


def test_the_line_is_in_the_readers_language(danlu, monkeypatch):
    monkeypatch.setenv("DANLU_LANG", "zh")
    line = danlu("runs", "show", "nothing", expect=1).line
    assert "nothing" in line
    assert not line.startswith("Error")


def test_a_value_that_looks_like_markup_is_printed_as_it_is(danlu):
    assert "“[bold]x[/nothing]”" in danlu("data", "show", "[bold]x[/nothing]", expect=1).line


def test_a_bad_setting_of_the_environment_is_named(danlu, monkeypatch):
    monkeypatch.setenv("DANLU_LOG_LEVEL", "loud")
    assert "DANLU_LOG_LEVEL cannot be “loud”" in danlu("runs", "list", expect=2).line


def test_a_home_that_cannot_be_written_is_named(danlu, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in danlu("runs", "list", "--home", tmp_path / "file", expect=1).line


def test_home_can_be_given_on_the_command(danlu, tmp_path, home):
    danlu("runs", "list", "--home", tmp_path / "other")
    assert (tmp_path / "other" / "runs").is_dir()
    assert not home.exists()


@pytest.mark.usefixtures("worker_here")
def test_a_worker_that_refuses_is_one_line_and_leaves_no_run(danlu, home, material, tmp_path):
    (tmp_path / "empty.json").write_text("")
    called = danlu("train", *words(material[0], tmp_path / "empty.json"), "--json", expect=1)
    assert "empty.json: The file is empty." in called.err
    assert "Traceback" not in called.err
    assert called.out == ""
    assert list((home / "runs").iterdir()) == []


def test_the_plan_is_decided_with_reasons_and_no_run_is_kept(danlu, home, material):
    called = danlu("plan", *words(*material), "--json")
    plan = called.json
    assert plan["settings"]["steps"] == 6
    assert plan["prediction"]["predicted_seconds"] > 0
    assert {item["by"] for item in plan["decisions"]} == {"recipe", "danlu"}
    assert "You chose it." in called.err
    assert "lora.r" in called.err
    assert plan["translated"] == []
    assert "LLaMA-Factory" not in called.err
    assert list((home / "runs").iterdir()) == []


def test_train_prints_exactly_one_object_with_the_promised_keys(trained):
    report = trained.called.json
    assert set(report) == REPORT
    assert report["status"] == "finished"
    assert (report["steps"], report["epochs"]) == (6, 2.0)
    assert {"predicted_seconds", "predicted_peak_rss_bytes"} <= set(report["plan"])
    run = RunFolder(trained.path / "runs" / trained.run)
    assert report["adapter"] == str(run.adapter)
    names = {path.name for path in run.path.iterdir()}
    assert {"recipe.yaml", "plan.json", "events.jsonl", "checkpoints", "adapter", "report.json"} <= names
    assert json.loads((run.path / "report.json").read_text(encoding="utf-8")) == report
    assert "step 6/6" not in trained.called.out


class TestFinished:
    """What can be asked about a finished run."""

    @pytest.fixture
    def home(self, trained):
        return trained.path

    def test_it_is_listed(self, danlu, trained):
        assert trained.run in danlu("runs", "list").out
        assert danlu("runs", "list", "--json").json["runs"] == [
            {"run": trained.run, "status": "finished", "model": "tiny"}
        ]

    def test_it_is_shown_with_its_plan(self, danlu, trained):
        shown = danlu("runs", "show", trained.run)
        assert "finished" in shown.out
        assert "train.learning_rate" in shown.out
        told = danlu("runs", "show", trained.run, "--json").json
        assert set(told) == {"run", "status", "plan", "report", "steps", "evals"}
        assert [item["step"] for item in told["steps"]] == [1, 2, 3, 4, 5, 6]
        assert [item["step"] for item in told["evals"]] == [0, 3, 6]

    def test_watching_it_ends_at_once(self, danlu, trained):
        assert f"{trained.run}: finished" in danlu("runs", "watch", trained.run).err

    def test_it_cannot_be_stopped_or_resumed(self, danlu, trained):
        assert "is not running" in danlu("runs", "stop", trained.run, expect=1).line
        assert "has finished" in danlu("runs", "resume", trained.run, expect=1).line

    @pytest.mark.usefixtures("worker_here")
    def test_it_is_proved(self, danlu, trained, tmp_path):
        report = tmp_path / "new" / "folder" / "proof.html"
        proof = danlu("eval", trained.run, "--report", report, "--json").json
        assert set(proof) == {"heldout", "probes", "general", "report"}
        assert set(proof["heldout"]) >= {"n", "loss_before", "loss_after"}
        assert set(proof["probes"]) == {"n", "pass_before", "pass_after", "items"}
        assert set(proof["probes"]["items"][0]) == {"question", "before", "after", "passed_before", "passed_after"}
        assert set(proof["general"]) >= {"loss_before", "loss_after", "kl"}
        assert proof["report"] == str(report)
        assert report.read_text(encoding="utf-8").startswith("<!doctype html>")

    @pytest.mark.usefixtures("worker_here")
    def test_a_bad_probe_file_is_one_line(self, danlu, trained, tmp_path):
        (tmp_path / "p.jsonl").write_text('{"question": 5}\n', encoding="utf-8")
        called = danlu("eval", trained.run, "--probes", tmp_path / "p.jsonl", expect=1)
        assert "p.jsonl, line 1" in called.line


def test_stopping_a_running_run_leaves_a_wish_that_its_worker_sees(danlu, trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "home")
    run = only_run(tmp_path / "home")
    other = RunFolder(run.path)
    with other.locked():
        danlu("runs", "stop", run.name)
        assert run.stop_file.exists()
        assert "works on this run" in danlu("runs", "remove", run.name, expect=1).line
    danlu("runs", "remove", run.name)
    assert danlu("runs", "list", "--json").json == {"runs": []}


def test_doctor_says_what_the_machine_is(danlu):
    built = files("danlu.server").joinpath("static", "index.html").is_file()
    told = danlu("doctor", "--json", expect=0 if built else 1).json
    assert set(told) == {
        "python", "system", "machine", "versions", "home", "disk_free_bytes", "port_8000_free", "web_application",
        "plugins", "problems",
    }  # fmt: skip
    assert set(told["machine"]["gflops"]) == {"float32", "bfloat16"}
    assert told["versions"]["torch"]
    assert bool(told["problems"]) == (not built)
    assert "GFLOP/s" in danlu("doctor", expect=0 if built else 1).out


def test_a_reader_who_goes_away_is_no_error(trained):
    process = start(trained.path, "runs", "show", trained.run, "--json")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) in {0, 1}
    process.stderr.close()
    assert err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")]
)
def test_times_are_written_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_recipe_file_comes_first_if_at_all():
    assert split_recipe(["r.yaml", "a=1"]) == (Path("r.yaml"), ["a=1"])
    assert split_recipe(["a=1", "b=2"]) == (None, ["a=1", "b=2"])
    assert split_recipe(None) == (None, [])


def test_a_run_stopped_before_its_first_step_is_shown_without_a_loss(danlu, home, material):
    prepared = preparing.prepare(Home(home), recipe(*material), quiet, predict_cost=False)
    report = pipeline.train(prepared, quiet, lambda: True)
    assert (report.status, report.steps) == ("stopped", 0)
    assert "loss" not in danlu("runs", "list").out
    assert "loss 0.000" not in danlu("runs", "show", prepared.run.name).out
