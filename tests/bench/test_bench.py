import json
import math
import os
import sys
from pathlib import Path

import pytest
import yaml

from bench import data_speed, kernels
from bench.shapes import write_shape
from bench.train_results import Loop, Run, Work, by_name, compare, read_danlu, read_peer, table
from bench.train_task import (
    PEERS,
    Task,
    chatml_copy,
    compare_tokens,
    danlu_words,
    environment,
    from_labels,
    peer_config,
    take_rows,
    trl_job,
    work_of,
    write_config,
    write_data,
)
from bench.train_vs_peers import main
from bench.watch import run_watched
from danlu.data.batches import step_members
from danlu.data.datasets import read_dataset
from danlu.events import EventLog, Finished, Step
from danlu.models.architecture import Architecture, read_architecture
from danlu.models.load import load_tokenizer
from danlu.recipe_file import load_recipe
from tests.data.files import question_rows, write_json_rows
from tests.tiny import write_tiny_model

TASK = Task(
    rows=16, epochs=2, batch_size=8, learning_rate=2e-4, r=8, lora_alpha=16, seed=42, threads=1, dtype="float32"
)
ROWS = [{"instruction": f"问 {n}", "input": "", "output": f"answer {n}"} for n in range(20)]


def _run(name: str, number: int, seconds: float, *, wall: float, rss: int, loss: float) -> Run:
    return Run(name, number, 32, Work(640, 32.0, 10.0), Loop(4, seconds, loss, 32 / seconds, ()), wall, rss, 0.1)


def _step(number: int, seconds: float) -> Step:
    return Step(
        step=number,
        epoch=0.5,
        loss=1.0,
        learning_rate=1e-4,
        grad_norm=1.0,
        tokens=100,
        supervised_tokens=50,
        seconds=seconds,
    )


def test_rows_fill_whole_steps_and_carry_their_system_prompt() -> None:
    rows = take_rows([{**ROWS[0], "system": "own"}, *ROWS[1:]], 19, 8, "given")
    assert len(rows) == 16
    assert [row["system"] for row in rows[:2]] == ["own", "given"]
    assert "history" not in rows[0]


def test_history_is_given_to_every_row_when_one_has_it() -> None:
    rows = take_rows([{**ROWS[0], "history": [["a", "b"]]}, *ROWS[1:]], 8, 8, "s")
    assert [row["history"] for row in rows[:2]] == [[["a", "b"]], []]


def test_fewer_rows_than_a_step_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill one step"):
        take_rows(ROWS, 7, 8, "s")


def test_danlu_reads_the_rows_that_were_written_and_the_registry_names_their_columns(tmp_path: Path) -> None:
    file = write_data(take_rows(ROWS, 16, 8, "be brief"), range(16), tmp_path)
    conversations = read_dataset(file).conversations
    assert len(conversations) == 16
    assert [message.role for message in conversations[3].messages] == ["system", "user", "assistant"]
    registry = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert registry["bench"]["file_name"] == file.name
    assert set(registry["bench"]["columns"].values()) == {"instruction", "input", "output", "system"}


def test_the_words_for_danlu_are_a_valid_recipe_that_leaves_nothing_of_the_task_to_be_decided(tmp_path: Path) -> None:
    recipe = load_recipe(None, danlu_words(TASK, tmp_path / "model", tmp_path / "bench.json"))
    assert recipe.data.train == (str(tmp_path / "bench.json"),)
    assert recipe.data.holdout == 0
    assert recipe.lora.r == 8
    assert recipe.lora.lora_alpha == 16
    train = recipe.train
    assert (train.learning_rate, train.num_train_epochs, train.batch_size) == (2e-4, 2, 8)
    assert (train.warmup_ratio, train.weight_decay, train.lr_scheduler_type) == (0, 0, "linear")
    assert train.dtype == "float32"


@pytest.mark.parametrize("name", sorted(name for name in PEERS if PEERS[name].program == "llamafactory"))
def test_every_peer_gets_the_same_task_and_its_file_is_read_back_unchanged(name: str, tmp_path: Path) -> None:
    config = peer_config(TASK, PEERS[name], tmp_path / "模型", tmp_path / "data", tmp_path / "out", None)
    read = yaml.safe_load(write_config(config, tmp_path / "peer.yaml").read_text(encoding="utf-8"))
    assert read == config
    assert read["per_device_train_batch_size"] * read["gradient_accumulation_steps"] == TASK.batch_size
    assert (read["lora_rank"], read["lora_alpha"], read["lora_target"]) == (8, 16, "all")
    assert read["learning_rate"] == 2e-4
    assert "template" not in read


@pytest.mark.parametrize("name", ["trl", "trl-tuned"])
def test_trl_gets_the_same_task_and_danlus_own_tokens(name: str, tmp_path: Path) -> None:
    examples = [([1, 2, 3], [False, True, True]), ([4, 5], [False, True])]
    job = trl_job(TASK, PEERS[name], tmp_path / "model", examples, tmp_path / "out")
    assert job["examples"][0] == {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}
    assert job["lora"] == {"r": 8, "lora_alpha": 16}
    told = job["training"]
    assert (told["per_device_train_batch_size"], told["learning_rate"], told["lr_scheduler_type"]) == (
        8,
        2e-4,
        "linear",
    )
    assert (told["num_train_epochs"], told["train_sampling_strategy"]) == (1.0, "sequential")
    assert told["max_length"] is None, "nothing may be cut"
    assert told["gradient_checkpointing"] is (name == "trl")


def test_the_work_of_a_run_counts_the_head_for_learned_tokens_only() -> None:
    shape = Architecture("llama", 8, 16, 2, 2, 1, 4, 100, tied=True)
    work = work_of([([1, 2, 3, 4], [False, False, True, True])], 3, shape, 50.0)
    assert work.tokens == 12
    assert work.gflop == pytest.approx((4 * shape.linear_parameters * 12 + 4 * 100 * 8 * 6) / 1e9)
    run = Run("danlu", 1, 3, work, Loop(3, 2.0, 1.0, 1.5, ()), 5.0, 1, 0.1)
    assert run.tokens_per_second == 6
    assert run.matrix_share == pytest.approx(work.gflop / 2 / 50)


def test_a_shape_has_the_tokenizer_of_another_model_and_its_own_vocabulary(tmp_path: Path) -> None:
    folder = write_shape("qwen2-tiny", write_tiny_model(tmp_path / "tiny"), tmp_path / "shape")
    shape = read_architecture(folder)
    assert (shape.type, shape.vocab_size, shape.attention_bias) == ("qwen2", 60_000, True)
    assert load_tokenizer(folder).encode("tea") == load_tokenizer(tmp_path / "tiny").encode("tea")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert write_shape("qwen2-tiny", tmp_path / "tiny", folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_default_peer_sets_nothing_that_the_task_does_not_ask_for(tmp_path: Path) -> None:
    default = peer_config(TASK, PEERS["lf-default"], tmp_path, tmp_path, tmp_path, None)
    tuned = peer_config(TASK, PEERS["lf-tuned"], tmp_path, tmp_path, tmp_path, None)
    assert not {"bf16", "disable_gradient_checkpointing", "train_sampling_strategy"} & set(default)
    assert set(tuned) - set(default) == {"disable_gradient_checkpointing", "train_sampling_strategy"}
    assert (default["num_train_epochs"], tuned["num_train_epochs"]) == (1.0, 2.0)


def test_the_default_peer_takes_danlus_examples_step_by_step(tmp_path: Path) -> None:
    rows = take_rows(ROWS, 16, 8, "s")
    order = [index for step in step_members(16, 8, TASK.seed, TASK.steps) for index in step]
    write_data(rows, order, tmp_path)
    config = peer_config(TASK, PEERS["lf-default"], tmp_path, tmp_path, tmp_path, None)
    registry = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    taken = json.loads((tmp_path / registry[config["dataset"]]["file_name"]).read_text(encoding="utf-8"))
    assert config["disable_shuffling"]
    assert len(taken) == TASK.examples
    assert taken == [rows[index] for index in order]
    assert taken[:16] != rows


def test_the_copy_for_the_peer_differs_in_its_template_alone(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "chat_template.jinja").write_text("{{ '<|im_start|>' }}", encoding="utf-8")
    for _ in range(2):
        copy = chatml_copy(model, tmp_path / "copy")
    assert (copy / "config.json").read_text(encoding="utf-8") == "{}"
    assert "<|im_end|>" in (copy / "chat_template.jinja").read_text(encoding="utf-8")
    assert (model / "chat_template.jinja").read_text(encoding="utf-8") == "{{ '<|im_start|>' }}"


def test_a_model_without_chatml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("[INST]", encoding="utf-8")
    with pytest.raises(ValueError, match="not ChatML"):
        chatml_copy(tmp_path, tmp_path / "copy")


def test_runs_have_no_network_no_gpu_and_the_same_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_HOME", "/elsewhere")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    variables = environment(TASK, tmp_path)
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert not variables["CUDA_VISIBLE_DEVICES"]
    assert not {"DANLU_HOME", "MALLOC_TRIM_THRESHOLD_"} & set(variables)


def test_equal_tokens_are_found_equal() -> None:
    ours = [([1, 2, 3], [False, False, True])]
    check = compare_tokens(ours, [from_labels([1, 2, 3], [-100, -100, 3])])
    assert check.equal
    assert check.learned == (1, 1)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [([1, 2, 3, 4], [-100, -100, 3, 4]), ([1, 2, 3], [-100, 2, 3]), ([1, 9, 3], [-100, -100, 3])],
    ids=["one token more", "one more learned", "another token"],
)
def test_different_tokens_are_found_different(ids: list[int], labels: list[int]) -> None:
    same = ([7], [True])
    check = compare_tokens([same, ([1, 2, 3], [False, False, True])], [same, from_labels(ids, labels)])
    assert check.differing == (1,)
    assert not check.equal


def test_a_missing_example_is_a_difference() -> None:
    assert not compare_tokens([([1], [True]), ([2], [True])], [([1], [True])]).equal


def test_danlus_loop_time_counts_what_lies_between_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs" / "r1" / "events.jsonl"
    with EventLog(path) as log:
        log.append(_step(1, 2.0))
        log.append(_step(2, 2.0))
        log.append(Finished(step=2, train_loss=1.5, heldout_loss=None, seconds=4.0, peak_rss_bytes=1))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    times = ("2026-01-01T00:00:10+00:00", "2026-01-01T00:00:13+00:00", "2026-01-01T00:01:00+00:00")
    dated = [{**line, "time": time} for line, time in zip(lines, times, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in dated), encoding="utf-8")
    report = {"run": "r1", "status": "finished", "steps": 2, "train_loss": 1.5, "examples_per_second": 4.0}
    loop = read_danlu(json.dumps(report), tmp_path)
    assert loop == Loop(steps=2, seconds=5.0, train_loss=1.5, own_rate=4.0, losses=(1.0, 1.0))


def test_a_stopped_run_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stopped"):
        read_danlu(json.dumps({"run": "r1", "status": "stopped"}), tmp_path)


def test_the_peers_files_are_read(tmp_path: Path) -> None:
    values = {"train_loss": 1.6, "train_runtime": 80.0, "train_samples_per_second": 0.4}
    (tmp_path / "train_results.json").write_text(json.dumps(values), encoding="utf-8")
    log = "".join(json.dumps({"current_steps": n, "loss": 2.0 - n / 10}) + "\n" for n in (1, 2, 3, 4))
    log += json.dumps({"current_steps": 4, "elapsed_time": "0:01:20"}) + "\n"
    (tmp_path / "trainer_log.jsonl").write_text(log, encoding="utf-8")
    assert read_peer(tmp_path) == Loop(4, 80.0, 1.6, 0.4, (1.9, 1.8, 1.7, 1.6))


def test_medians_and_ratios() -> None:
    runs = [
        _run("danlu", 1, 8.0, wall=20.0, rss=3_000, loss=1.5),
        _run("lf-default", 1, 32.0, wall=60.0, rss=6_000, loss=1.5),
        _run("danlu", 2, 10.0, wall=30.0, rss=3_300, loss=1.53),
        _run("danlu", 3, 800.0, wall=900.0, rss=3_200, loss=1.53),
        _run("lf-default", 2, 32.0, wall=60.0, rss=6_800, loss=1.5),
    ]
    sides = by_name(runs)
    assert list(sides) == ["danlu", "lf-default"]
    assert sides["danlu"].runs == 3
    assert sides["danlu"].examples_per_second == pytest.approx(3.2)
    assert sides["lf-default"].peak_rss_bytes == pytest.approx(6_400)
    found = compare(sides["danlu"], sides["lf-default"])
    assert found.speed == pytest.approx(3.2)
    assert found.wall == pytest.approx(2.0)
    assert found.memory == pytest.approx(0.5)
    assert found.loss_percent == pytest.approx(2.0)
    text = table(sides)
    assert "3.20× the examples/s" in text
    assert "+2.00 %" in text


@pytest.mark.skipif(os.name == "nt", reason="counts the memory of a tree as Linux and macOS report it")
def test_memory_is_that_of_the_whole_tree_and_output_is_kept(tmp_path: Path) -> None:
    inner = "import time; block = bytearray(b'x') * 120_000_000; time.sleep(2.5)"
    outer = (
        "import subprocess, sys; block = bytearray(b'x') * 80_000_000; "
        f"subprocess.run([sys.executable, '-c', {inner!r}]); print('done'); sys.exit(3)"
    )
    watched = run_watched([sys.executable, "-c", outer], tmp_path / "log", dict(os.environ), tmp_path)
    assert watched.status == 3
    assert watched.stdout.strip() == "done"
    assert watched.peak_rss_bytes > 200_000_000
    assert watched.seconds > 2.5
    assert math.isfinite(watched.seconds)


def test_an_unknown_peer_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--model", "m", "--data", "d", "--peers", "unheard-of"])
    assert ended.value.code == 2
    assert "lf-default" in capsys.readouterr().err


def test_both_ways_of_a_part_are_measured() -> None:
    times = kernels.attention(32, repeats=1)
    assert set(times) == {"torch", "blocks"}
    assert all(0 < seconds < math.inf for seconds in times.values())


def test_all_ways_of_a_product_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MATRIX_BYTES", 1 << 20)
    times = kernels.products(64, 128, 3, repeats=1)
    assert set(times) == {"torch", "transposed", "onednn"}
    assert all(0 < seconds < math.inf for seconds in times.values())


def test_the_speed_of_data_is_measured_on_rows_that_give_the_same_ids(tmp_path, capsys):
    write_tiny_model(tmp_path / "tiny")
    capsys.readouterr()  # what libraries print when they are first imported
    rows = write_json_rows(tmp_path / "rows.json", question_rows(5))
    words = ["--rows", str(rows), "--model", str(tmp_path / "tiny"), "--count", "12", "--encoded", "7"]
    assert data_speed.main([*words, "--repeats", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["same_ids"] is True
    assert {way: result["rows"] for way, result in told["results"].items()} == dict(
        zip(data_speed.WAYS, (12, 7, 7, 7), strict=True)
    )
    assert all(result["peak_bytes"] > 1e7 for result in told["results"].values())
