"""Several processes that train together do what one does, however weights lie among them, and go on from each other."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from danlu.training.preference_settings import PreferenceSettings
from danlu.training.ranks.base import Ranks
from danlu.training.settings import LoraSettings, TrainSettings
from tests.training.fitting import assert_bit_equal, settings, weights
from tests.training.together import Case, Told, fit_case, run_together

STEPS = 5


def few(**changes: object) -> TrainSettings:
    """Five steps, measured and saved at the end."""
    return settings(**{"steps": STEPS, "eval_every": STEPS, "checkpoint_every": STEPS, **changes})


LORA, FULL = few(), few(method="full", learning_rate=1e-3)
KTO = few(preference=PreferenceSettings(objective="kto", beta=0.3), learning_rate=1e-3)
MORE = {
    "fsdp-pissa": few(lora=LoraSettings(r=4, lora_alpha=8, init_lora_weights="pissa")),
    "fsdp-kto": KTO,
    "zero1-faster": few(lora=LoraSettings(r=4, lora_alpha=8, loraplus_lr_ratio=4.0)),
    "zero2-freeze": few(method="freeze", learning_rate=1e-3),
    "zero3-dora": few(lora=LoraSettings(r=4, lora_alpha=8, use_dora=True)),
    "zero3-kto": KTO,
    "ddp-dpo": few(preference=PreferenceSettings(objective="dpo"), learning_rate=1e-3),
    "ddp-qlora": few(method="qlora"),
}
# What one layout begins, another ends.
HANDED_ON = [("fsdp", "zero3"), ("zero3", "zero2"), ("zero2", "fsdp")]
OWN = {"settings": FULL, "family": "qwen2", "tied": False}

TWO = [
    Case(name="ddp-lora", settings=LORA),
    *(Case(name=f"{way}-full", strategy=way, **OWN) for way in ("ddp", "zero1")),
    *(Case(name=name, settings=chosen, strategy=name.split("-")[0]) for name, chosen in MORE.items()),
    Case(name="ddp-breaks", settings=few(share_prefix=False), breaks=True),
    Case(name="ddp-half", settings=LORA, stop_after=3),
    Case(name="ddp-goes-on", settings=LORA, resume="ddp-half"),
]
for first, second in HANDED_ON:
    TWO += [
        Case(name=f"{first}-begins", strategy=first, stop_after=3, **OWN),
        Case(name=f"{second}-ends", strategy=second, resume=f"{first}-begins", **OWN),
    ]
# A person stops the run in the middle of a measurement.
MEASURED = few(method="full", learning_rate=1e-3, eval_every=3)
for way in ("ddp", "fsdp", "zero3"):
    TWO += [
        Case(name=f"{way}-measuring", settings=MEASURED, strategy=way, stop_after=3),
        Case(name=f"{way}-measured", settings=MEASURED, strategy=way, resume=f"{way}-measuring"),
    ]
# Four examples among three processes, and weights that three cannot divide evenly.
THREE = [
    Case(name="fsdp-full", settings=FULL, strategy="fsdp", stop_after=3),
    Case(name="zero3-full", settings=FULL, strategy="zero3", resume="fsdp-full"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """All cases of two processes: the folder, and what was seen by name."""
    folder = tmp_path_factory.mktemp("two")
    return folder, run_together(folder, TWO)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The same with three."""
    folder = tmp_path_factory.mktemp("three")
    return folder, run_together(folder, THREE, size=3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Gives what one process does in a case."""
    folder, known = tmp_path_factory.mktemp("alone"), {}

    def told(case: Case):
        key = f"{case.settings.model_dump_json()}{case.family}{case.tied}"
        if key not in known:
            plain = case.model_copy(update={"name": str(len(known)), "stop_after": None, "resume": None})
            known[key] = (fit_case(plain, folder), weights(folder / plain.name, case.settings.method))
        return known[key]

    return told


def compare(said: Told, left: dict[str, torch.Tensor], case: Case, alone, skipped: int = 0) -> None:
    told, wanted = alone(case)
    assert said.error is None
    assert said.losses == pytest.approx(told.losses[skipped:], rel=2e-5)
    assert said.norms == pytest.approx(told.norms[skipped:], rel=2e-4)
    assert said.preferred == told.preferred[skipped:]
    assert left.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(left[name], wanted[name], rtol=1e-3, atol=2e-5, msg=name)


WHOLE = [case for case in TWO if case.stop_after is None and case.resume is None]


@pytest.mark.parametrize("case", WHOLE, ids=[case.name for case in WHOLE])
def test_losses_gradients_and_weights_are_those_of_one_process(case, two, alone):
    folder, said = two
    compare(said[case.name], weights(folder / case.folder, case.settings.method), case, alone)
    assert len(said[case.name].losses) == STEPS


@pytest.mark.parametrize(("first", "second"), HANDED_ON)
def test_what_one_layout_began_another_ends(first, second, two, alone):
    folder, said = two
    begun, ended = said[f"{first}-begins"], said[f"{second}-ends"]
    assert begun.stopped
    assert len(begun.losses) == 3
    case = next(case for case in TWO if case.name == f"{second}-ends")
    assert len(ended.losses) == STEPS - 3
    compare(ended, weights(folder / case.folder, "full"), case, alone, skipped=3)


def test_one_process_goes_on_from_the_checkpoint_of_several(two, alone):
    folder, _ = two
    name = "step-000003"
    shutil.copytree(folder / "fsdp-begins" / "checkpoints" / name, folder / "goes-on" / "checkpoints" / name)
    case = Case(name="goes-on", resume="goes-on", **OWN)
    said = fit_case(case, folder)
    assert len(said.losses) == STEPS - 3
    compare(said, weights(folder / "goes-on", "full"), case, alone, skipped=3)


@pytest.mark.parametrize(
    ("way", "first", "second"), [("ddp", [0], [3, 5]), ("fsdp", [0, 3], [5]), ("zero3", [0, 3], [5])]
)
def test_a_stop_within_a_measurement_loses_nothing_and_is_heard_after_it_where_weights_are_spread(
    way, first, second, two, alone
):
    folder, said = two
    assert said[f"{way}-measuring"].stopped
    assert said[f"{way}-measuring"].measured == first
    assert said[f"{way}-measured"].measured == second
    case = next(case for case in TWO if case.name == f"{way}-measured")
    compare(said[case.name], weights(folder / case.folder, "full"), case, alone, skipped=3)


def test_a_stopped_run_of_several_ends_with_the_same_bits(two):
    folder, said = two
    assert said["ddp-half"].losses + said["ddp-goes-on"].losses == said["ddp-lora"].losses
    assert_bit_equal(weights(folder / "ddp-half"), weights(folder / "ddp-lora"))


def test_memory_that_runs_out_in_one_of_them_makes_the_pieces_smaller_in_all(two):
    _, said = two
    assert set(said["ddp-breaks"].warnings) == {"training.smaller_pieces"}
    assert "training.smaller_pieces" not in said["ddp-lora"].warnings


def test_a_checkpoint_holds_whole_tensors_and_nothing_of_the_layout(two):
    folder, _ = two
    one, other = (
        load_file(max((folder / name / "checkpoints").glob("step-*")) / "optimizer.safetensors")
        for name in ("ddp-full", "fsdp-begins")
    )
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("case", THREE, ids=[case.name for case in THREE])
def test_three_processes_too(case, three, alone):
    folder, said = three
    if case.stop_after is not None:
        assert said[case.name].stopped
        return
    skipped = 3 if case.resume else 0
    compare(said[case.name], weights(folder / case.folder, case.settings.method), case, alone, skipped)


def test_one_process_that_counts_for_all_updates_nothing_by_what_is_no_number():
    model = torch.nn.Linear(2, 2)
    ranks = Ranks()
    ranks.begin(model, LORA)
    before = model.weight.detach().clone()
    ranks.backward(model(torch.ones(1, 2)).sum() * math.nan)
    assert math.isnan(ranks.update(1e-3, 1.0))
    assert torch.equal(model.weight, before)
