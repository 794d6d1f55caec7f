"""New words in the vocabulary: begun as means, learned exactly, and the same in training, exports and serving."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from danlu.errors import RecipeError
from danlu.events import Warned
from danlu.export.merge import write_merged
from danlu.jobs import pipeline, preparing
from danlu.jobs.exporting import export_run
from danlu.models.chat_format import ChatFormat
from danlu.models.load import load_model, load_tokenizer
from danlu.models.new_tokens import begin_as_means, pieces_of, write_tokenizer
from danlu.serving.transformers_model import LocalModel
from danlu.training.forward import LossModel
from danlu.training.trained import attach, finished_folder, trainable
from tests.data.files import write_json_rows
from tests.jobs.homes import assert_same_bits, never, quiet, recipe, stopped_and_resumed
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.fitting import examples, settings

WORDS = ("<tool>", "丹炉")


def write_base(folder, *, tied=True):
    """Write a model whose embedding has no row to spare."""
    tokenizer = tiny_tokenizer()
    tiny_model(tied=tied, vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows():
    return [{"instruction": f"What is {n}?", "input": "", "output": f"<tool> 丹炉 {n}<tool>"} for n in range(12)]


def wish(tmp_path, *words, tied=True):
    base = write_base(tmp_path / "base", tied=tied)
    data = write_json_rows(tmp_path / "tools.json", rows())
    words = ("new_tokens=['<tool>', '丹炉']", "train.learning_rate=5e-3", "eval.every=6", *words)
    return recipe(base, data, *words)


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_row_begins_as_the_mean_of_its_pieces(tmp_path, tied):
    base = write_base(tmp_path / "base", tied=tied)
    write_tokenizer(base, WORDS, tmp_path / "grown")
    pieces = pieces_of(base, tmp_path / "grown", WORDS)
    model, before = load_model(base, "float32"), load_model(base, "float32")
    begin_as_means(model, pieces)
    old = load_tokenizer(base)
    for word, (index, parts) in zip(WORDS, pieces.items(), strict=True):
        assert parts == old.encode(word, add_special_tokens=False)
        for layer in ("get_input_embeddings", "get_output_embeddings"):
            mean = getattr(before, layer)().weight[parts].mean(dim=0)
            torch.testing.assert_close(getattr(model, layer)().weight[index], mean)
    ids = torch.tensor([[5, 9, 200, 31, 77]])
    torch.testing.assert_close(model(input_ids=ids).logits[..., : len(old)], before(input_ids=ids).logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_packed_loss_with_new_rows_has_the_plain_gradients(family, tied):
    ids = (7, 100, 350)
    model = attach(tiny_model(family, tied=tied), settings(new_token_ids=ids))
    assert isinstance(model, PeftModel)
    assert sum("trainable_tokens" in name for name in trainable(model)) == (1 if tied else 2)
    torch.manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    losses = LossModel(model)
    packed = examples(6)
    ((_, piece),) = losses.step_losses(packed, 1 << 20)
    found = []
    for compute in (
        lambda: losses.piece_loss(piece),
        lambda: losses.token_losses(piece)[0].sum(),
        lambda: losses.plain_loss_sum(packed),
    ):
        loss = compute()
        loss.backward()
        found.append([loss.detach(), *(value.grad.clone() for value in trainable(model).values())])
        model.zero_grad()
    for other in found[:2]:
        for one, plain in zip(other, found[2], strict=True):
            torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("tied", "words"),
    [
        (True, ()),
        (False, ()),
        (True, ("lora.init_lora_weights=pissa",)),
        (True, ("method=qlora",)),
        (True, ("method=full",)),
        (False, ("method=freeze", "freeze.layers=1")),
    ],
)
def test_new_words_are_learned_resumed_to_the_same_bits_and_exported(home, tmp_path, tied, words):
    wanted = wish(tmp_path, *words, tied=tied)
    whole = preparing.prepare(home, wanted, quiet, predict_cost=False)
    new = whole.plan.settings.new_token_ids
    size = len(load_tokenizer(tmp_path / "base"))
    assert new == (size, size + 1)
    learned = {token for item in whole.examples for token in item.input_ids}
    assert set(new) <= learned, "the words are single ids in what is learned"
    seen = []
    pipeline.train(whole, seen.append, never)
    assert not [told for told in seen if isinstance(getattr(told, "event", None), Warned)], "packed is plain"

    again, _ = stopped_and_resumed(home, wanted, after=2)
    assert_same_bits(whole.run, again.run)
    if finished_folder(wanted.method) == "adapter":
        names = load_file(whole.run.adapter / "adapter_model.safetensors")
        assert not [name for name in names if "embed_tokens" in name and "trainable_tokens_delta" not in name]

    prepared = preparing.reopen(home, whole.run.name, quiet)
    proof = pipeline.prove_run(prepared, quiet)
    assert proof.heldout.loss_after < proof.heldout.loss_before
    version = pipeline.publish(preparing.reopen(home, whole.run.name, quiet), proof, quiet, "f16")
    assert version.new_tokens == WORDS
    assert version.export("gguf").agreement.token_ids == 1.0
    served = ChatFormat.load(home.versions / version.id / version.tokenizer, version.system, version.thinking)
    assert [served.tokenizer.encode(word, add_special_tokens=False) for word in WORDS] == [[new[0]], [new[1]]]
    assert served.tokenizer.decode(list(new), skip_special_tokens=True).replace(" ", "") == "".join(WORDS)

    result = export_run(home, whole.run, tmp_path / "merged", "merged", "q8_0")
    assert result.agreement.token_ids == 1.0
    config = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    merged = load_model(tmp_path / "merged", "float32")
    assert config["vocab_size"] == merged.get_input_embeddings().weight.shape[0] == size + 2


def test_a_merged_vocabulary_says_what_was_trained(home, tmp_path):
    wanted = wish(tmp_path, tied=False)
    prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
    pipeline.train(prepared, quiet, never)
    (tmp_path / "out").mkdir()
    write_merged(tmp_path / "base", prepared.run.adapter, prepared.run.tokenizer, tmp_path / "out")
    ids = torch.tensor([[5, 9, *prepared.plan.settings.new_token_ids, 77]])
    merged = load_model(tmp_path / "out", "float32")
    trained = prepared.model.eval()(input_ids=ids).logits
    torch.testing.assert_close(merged(input_ids=ids).logits, trained, rtol=1e-4, atol=1e-4)
    threads = torch.get_num_threads()
    served = LocalModel.load(tmp_path / "base", prepared.run.adapter, prepared.run.tokenizer, threads)
    assert served.vocabulary == merged.get_input_embeddings().weight.shape[0]
    torch.testing.assert_close(served._model(input_ids=ids).logits, trained, rtol=1e-4, atol=1e-4)


def test_a_run_with_new_words_is_gone_on_from_with_its_words(home, tmp_path):
    first = preparing.prepare(home, wish(tmp_path), quiet, predict_cost=False)
    pipeline.train(first, quiet, never)
    base, data = tmp_path / "base", tmp_path / "tools.json"
    second = preparing.prepare(home, recipe(base, data, f"lora.adapter={first.run.name}"), quiet, predict_cost=False)
    assert second.plan.new_tokens == WORDS
    before = LossModel(first.model).mean_loss(first.heldout, 1 << 20)
    assert LossModel(second.model).mean_loss(second.heldout, 1 << 20) == pytest.approx(before, rel=1e-5)
    pipeline.train(second, quiet, never)
    with pytest.raises(RecipeError) as caught:
        preparing.prepare(home, recipe(base, data, f"lora.adapter={first.run.name}", "new_tokens=[x-y-z]"), quiet)
    assert caught.value.where == "new_tokens"


@pytest.mark.parametrize(
    ("tokens", "key"),
    [
        ("['']", "token_empty"),
        ("['<tool>', '<tool>']", "token_twice"),
        ("['<|im_end|>']", "token_known"),
        ("['a']", "token_known"),
        ("[' <tool>']", "token_spaces"),
    ],
)
def test_a_word_that_cannot_be_new_is_refused_and_leaves_no_run(home, tmp_path, tokens, key):
    base = write_base(tmp_path / "base")
    data = write_json_rows(tmp_path / "tools.json", rows())
    with pytest.raises(RecipeError) as caught:
        preparing.prepare(home, recipe(base, data, f"new_tokens={tokens}"), quiet)
    assert (caught.value.key, caught.value.where) == (f"models.{key}", "new_tokens")
    assert list(home.runs.iterdir()) == []
