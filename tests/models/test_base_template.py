"""Templates for models that have none: what ends a turn is one token, and every program finds it in the folder."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from danlu.errors import ModelError, RecipeError
from danlu.models.base_template import fit_template, write_with_template
from danlu.models.chat_format import ChatFormat
from danlu.models.load import load_tokenizer
from danlu.models.messages import Message
from danlu.models.new_tokens import write_tokenizer
from tests.models.families import CHATML

ASKED = (Message("system", "Be kind."), Message("user", "你好?"))
ANSWERED = (*ASKED, Message("assistant", "Hello."))


def write_bare(folder, *, special=("</s>",), eos="</s>", bos=""):
    """Write the tokenizer of a base model: bytes, special tokens, no chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos:
        bare.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bare.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=eos or None, bos_token=bos or None)
    fast.save_pretrained(folder)
    return folder


def learned(chat, messages=ANSWERED):
    (sequence,) = chat.training_sequences(messages, [message.role == "assistant" for message in messages])
    return chat.tokenizer.decode([token for token, wanted in zip(sequence.ids, sequence.learn, strict=True) if wanted])


def test_a_model_that_has_the_marks_of_chatml_gets_chatml_with_them(tmp_path):
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    base = write_bare(tmp_path / "base", special=special, eos="<|endoftext|>")
    made = fit_template(base, tmp_path / "run", "auto")
    assert (made.name, made.token) == ("chatml", "<|im_end|>")
    chat = ChatFormat.load(tmp_path / "run")
    ids = chat.tokenizer.convert_tokens_to_ids
    assert chat.given is None, "the folder has a template of its own now"
    assert chat.stop_ids == {ids("<|im_end|>"), ids("<|endoftext|>")}
    assert learned(chat) == "Hello.<|im_end|>"
    assert chat.prompt_text(ASKED) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n你好?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.tokenizer.eos_token == "<|endoftext|>", "what ends a text still does, for plain texts"
    settings = json.loads((tmp_path / "run" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == [ids("<|im_end|>"), ids("<|endoftext|>")]
    assert len(chat.tokenizer) == len(load_tokenizer(base)), "the vocabulary is not grown"


def test_a_model_without_these_marks_ends_turns_with_the_end_of_a_text(tmp_path):
    base = write_bare(tmp_path / "base")
    made = fit_template(base, tmp_path / "run", "auto")
    assert (made.name, made.token) == ("chatml", "</s>")
    chat = ChatFormat.load(tmp_path / "run")
    assert chat.stop_ids == {chat.tokenizer.eos_token_id}
    assert learned(chat) == "Hello.</s>"
    assert chat.prompt_text(ASKED).startswith("<|im_start|>system\nBe kind.</s>\n<|im_start|>user\n")
    # What a reader of the folder alone renders is the same.
    dicts = [{"role": message.role, "content": message.content} for message in ASKED]
    plain = PreTrainedTokenizerFast.from_pretrained(str(tmp_path / "run"))
    assert plain.apply_chat_template(dicts, add_generation_prompt=True, return_dict=False) == chat.prompt_ids(ASKED)


def test_marks_that_were_asked_for_as_new_tokens_are_used(tmp_path):
    base = write_bare(tmp_path / "base")
    write_tokenizer(base, ("<|im_start|>", "<|im_end|>"), tmp_path / "run")
    made = fit_template(base, tmp_path / "run", "auto")
    assert made.token == "<|im_end|>"
    chat = ChatFormat.load(tmp_path / "run")
    assert learned(chat) == "Hello.<|im_end|>"
    assert "<|im_end|>" not in chat.tokenizer.decode(chat.prompt_ids(ASKED), skip_special_tokens=True)


@pytest.mark.parametrize("wish", ["auto", "plain"])
def test_a_tokenizer_that_begins_texts_itself_begins_conversations_so(tmp_path, wish):
    base = write_bare(tmp_path / "base", special=("<s>", "</s>"), bos="<s>")
    fit_template(base, tmp_path / "run", wish)
    chat = ChatFormat.load(tmp_path / "run")
    assert chat.prompt_ids(ASKED)[0] == chat.tokenizer.bos_token_id
    assert chat.prompt_ids(ASKED).count(chat.tokenizer.bos_token_id) == 1


def test_the_plain_template_names_the_speakers(tmp_path):
    made = fit_template(write_bare(tmp_path / "base"), tmp_path / "run", "plain")
    assert (made.name, made.token) == ("plain", "</s>")
    chat = ChatFormat.load(tmp_path / "run")
    assert chat.prompt_text(ASKED) == "Be kind.\n\nUser:\n你好?\n\nAssistant:\n"
    assert learned(chat) == "Hello.</s>"
    with pytest.raises(ModelError) as caught:
        chat.prompt_ids((*ASKED, Message("tool", "x")))
    assert caught.value.key == "templates.refused"


def test_a_file_takes_the_place_of_the_models_own_template(tmp_path):
    base = write_bare(tmp_path / "base")
    write_with_template(base, base, "chatml")
    assert fit_template(base, tmp_path / "none", "auto") is None
    assert not (tmp_path / "none").exists()
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}",
        encoding="utf-8",
    )
    assert fit_template(base, tmp_path / "run", str(file)).name == "mine.jinja"
    chat = ChatFormat.load(tmp_path / "run")
    assert chat.prompt_text(ASKED) == "[system] Be kind.</s>[user] 你好?</s>[assistant] "
    assert learned(chat) == "Hello.</s>"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (None, "templates.file_missing"),
        (b"{% for m in %}", "templates.file_not_jinja"),
        (b"  \n", "templates.file_not_jinja"),
        (b"\xff\xfe\x00", "templates.file_unreadable"),
        (b"{% for m in messages %}{{ m.content }}{% endfor %}", "chat_format.no_end_of_turn"),
    ],
)
def test_a_file_that_is_no_template_is_refused_before_anything_is_trained(tmp_path, content, key):
    file = tmp_path / "mine.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((RecipeError, ModelError)) as caught:
        fit_template(write_bare(tmp_path / "base"), tmp_path / "run", str(file))
    assert caught.value.key == key
    assert caught.value.message("zh")


def test_a_tokenizer_with_nothing_that_ends_a_text_is_refused(tmp_path):
    base = write_bare(tmp_path / "base", special=("<pad>",), eos="")
    for load in (lambda: fit_template(base, tmp_path / "run", "auto"), lambda: ChatFormat.load(base)):
        with pytest.raises(ModelError) as caught:
            load()
        assert caught.value.key == "templates.no_end_token"


def test_a_folder_without_a_template_is_loaded_with_the_one_a_run_would_write(tmp_path):
    base = write_bare(tmp_path / "base", special=("<s>", "</s>", "<|im_start|>", "<|im_end|>"), bos="<s>")
    fit_template(base, tmp_path / "run", "auto")
    loaded, written = ChatFormat.load(base), ChatFormat.load(tmp_path / "run")
    assert (loaded.given, written.given) == ("chatml", None)
    assert loaded.prompt_ids(ASKED) == written.prompt_ids(ASKED)
    assert loaded.stop_ids == written.stop_ids
    assert loaded.template.source == written.template.source


def test_a_template_of_several_names_is_read_by_its_plain_one(tmp_path):
    base = write_bare(tmp_path / "base", special=("</s>", "<|im_start|>", "<|im_end|>"), eos="<|im_end|>")
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = {"default": CHATML, "tool_use": CHATML}
    chat = ChatFormat(tokenizer)
    assert chat.template.source == CHATML
    assert learned(chat) == "Hello.<|im_end|>"
