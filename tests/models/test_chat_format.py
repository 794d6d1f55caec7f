"""One way from a conversation to token ids: what is trained is what an engine is given and what it must answer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from danlu.errors import ModelError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from tests.models import templates
from tests.tiny import TEXT, tiny_tokenizer


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def system(text: str) -> Message:
    return Message("system", text)


@cache
def tokenizer(template: str, eos: str) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bare.train_from_iterator(TEXT, trainer)
    bare.add_special_tokens([AddedToken(token, special=True) for token in templates.SPECIAL])
    bare.add_tokens([AddedToken(token, special=False) for token in templates.THINK])
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=eos, pad_token="<|endoftext|>")
    fast.chat_template = template
    return fast


@dataclass(frozen=True)
class Family:
    template: str
    eos: str
    end: str  # what ends an answer
    stop: str  # its last token
    thinks: bool = False
    knows_system: bool = True

    def format(self, **options) -> ChatFormat:
        return ChatFormat(tokenizer(self.template, self.eos), **options)


FAMILIES = {
    "chatml": Family(templates.CHATML, "<|im_end|>", "<|im_end|>", "<|im_end|>"),
    "qwen2.5": Family(templates.QWEN25, "<|im_end|>", "<|im_end|>", "<|im_end|>"),
    "qwen3": Family(templates.QWEN3, "<|im_end|>", "<|im_end|>", "<|im_end|>", thinks=True),
    "r1": Family(templates.R1, "<eos>", "<eos>", "<eos>", thinks=True),
    "llama3": Family(templates.LLAMA3, "<|eot_id|>", "<|eot_id|>", "<|eot_id|>"),
    "llama3-base-eos": Family(templates.LLAMA3, "<|end_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "gemma": Family(templates.GEMMA, "<eos>", "<end_of_turn>", "<end_of_turn>", knows_system=False),
}
PLAIN = [name for name, family in FAMILIES.items() if not family.thinks]
every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
plain = pytest.mark.parametrize("family", [FAMILIES[name] for name in PLAIN], ids=PLAIN)

ONE = (user("Who are you?"), assistant("I am Mochi 🙂."))
TWO = (*ONE, user("你是谁?"), assistant("我是麻薯。"))


def whole_ids(chat: ChatFormat, messages) -> list[int]:
    return chat.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages], tokenize=True, return_dict=False
    )


def learned_texts(chat: ChatFormat, sequence) -> list[str]:
    """The learned stretches of a sequence as texts."""
    texts: list[list[int]] = []
    before = False
    for token, learned in zip(sequence.ids, sequence.learn, strict=True):
        if learned and not before:
            texts.append([])
        if learned:
            texts[-1].append(token)
        before = learned
    return [chat.tokenizer.decode(ids) for ids in texts]


def learn_all(messages) -> list[bool]:
    return [message.role == "assistant" for message in messages]


@plain
@pytest.mark.parametrize("messages", [ONE, TWO], ids=["one turn", "two turns"])
def test_the_ids_are_those_of_the_template_for_the_whole_conversation(family, messages):
    chat = family.format()
    (sequence,) = chat.training_sequences(messages, learn_all(messages))
    whole = whole_ids(chat, messages)
    assert list(sequence.ids) == whole[: len(sequence.ids)]
    assert chat.tokenizer.decode(whole[len(sequence.ids) :]).strip() == "", "only white space follows the last answer"


@every
def test_a_prompt_is_exactly_what_stands_before_the_learned_answer(family):
    chat = family.format()
    for sequence in chat.training_sequences(ONE, (False, True)):
        prompt = chat.prompt_ids(ONE[:1])
        assert list(sequence.ids[: len(prompt)]) == prompt
        assert sequence.learn == (False,) * len(prompt) + (True,) * (len(sequence.ids) - len(prompt))


@plain
def test_exactly_the_answers_and_their_ends_are_learned(family):
    chat = family.format()
    (sequence,) = chat.training_sequences(TWO, learn_all(TWO))
    assert learned_texts(chat, sequence) == [TWO[1].content + family.end, TWO[3].content + family.end]


@plain
def test_a_turn_that_is_not_wanted_is_not_learned(family):
    chat = family.format()
    (sequence,) = chat.training_sequences(TWO, (False, False, False, True))
    assert learned_texts(chat, sequence) == [TWO[3].content + family.end]
    assert list(sequence.ids) == list(chat.training_sequences(TWO, learn_all(TWO))[0].ids)
    (first,) = chat.training_sequences(TWO, (False, True, False, False))
    assert learned_texts(chat, first) == [TWO[1].content + family.end]
    assert len(first.ids) < len(sequence.ids)
    assert chat.training_sequences(TWO, (False,) * 4) == []


@every
def test_answers_end_with_the_token_that_stops_engines(family):
    chat = family.format()
    stop = chat.tokenizer.convert_tokens_to_ids(family.stop)
    assert chat.end_of_turn == family.end
    assert stop in chat.stop_ids
    assert family.stop in chat.stop_strings
    assert chat.training_sequences(ONE, (False, True))[-1].ids[-1] == stop


def test_stop_ids_are_the_end_of_a_turn_the_end_of_the_text_and_those_of_the_models_settings():
    chat = FAMILIES["llama3-base-eos"].format(extra_stop_ids=frozenset({7}))
    ids = chat.tokenizer.convert_tokens_to_ids
    assert chat.stop_ids == {7, ids("<|eot_id|>"), ids("<|end_of_text|>")}
    assert set(chat.stop_strings) == {"<|eot_id|>", "<|end_of_text|>", chat.tokenizer.convert_ids_to_tokens(7)}


def test_a_default_system_prompt_is_the_templates_and_a_saved_one_replaces_it():
    chat = FAMILIES["qwen2.5"].format()
    assert chat.prompt_text(ONE[:1]).startswith("<|im_start|>system\nYou are helpful.<|im_end|>\n")
    own = chat.with_system("You are Mochi.")
    assert own.prompt_text(ONE[:1]).startswith("<|im_start|>system\nYou are Mochi.<|im_end|>\n<|im_start|>user")
    assert "helpful" not in own.prompt_text(ONE[:1])
    assert own.prompt_text((system("Another."), *ONE[:1])).startswith("<|im_start|>system\nAnother.<|im_end|>")


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.knows_system])
def test_the_saved_system_prompt_is_trained_with_and_served_with(name):
    chat = FAMILIES[name].format(system="You are Mochi.")
    prompt = chat.prompt_ids(ONE[:1])
    assert prompt == FAMILIES[name].format().prompt_ids((system("You are Mochi."), *ONE[:1]))
    (sequence,) = chat.training_sequences(ONE, (False, True))
    assert list(sequence.ids[: len(prompt)]) == prompt


def test_reasoning_stripped_from_earlier_turns_gives_one_sequence_for_each_turn():
    chat = FAMILIES["qwen3"].format()
    messages = (
        user("1+1?"),
        assistant("<think>\neasy\n</think>\n\n2"),
        user("2+2?"),
        assistant("<think>\nharder\n</think>\n\n4"),
    )
    first, second = chat.training_sequences(messages, learn_all(messages))
    assert learned_texts(chat, first) == ["<think>\neasy\n</think>\n\n2<|im_end|>"]
    assert learned_texts(chat, second) == ["<think>\nharder\n</think>\n\n4<|im_end|>"]
    assert "easy" not in chat.tokenizer.decode(second.ids)
    prompt = chat.prompt_ids(messages[:3])
    assert list(second.ids[: len(prompt)]) == prompt
    assert list(second.ids) == whole_ids(chat, messages)[: len(second.ids)]


def test_plain_answers_of_a_reasoning_model_are_learned_after_an_empty_think_block_that_is_not_learned():
    for name in ("qwen3", "r1"):
        chat = FAMILIES[name].format(thinking="off")
        prompt = chat.prompt_text(ONE[:1])
        assert prompt.endswith("<think>\n\n</think>\n\n")
        assert not chat.opens_thinking(ONE[:1])
        (sequence,) = chat.training_sequences(ONE, (False, True))
        assert learned_texts(chat, sequence) == ["I am Mochi 🙂." + FAMILIES[name].end]


def test_two_plain_turns_of_a_reasoning_model_are_learned_as_an_engine_will_see_them():
    chat = FAMILIES["qwen3"].format(thinking="off")
    sequences = chat.training_sequences(TWO, learn_all(TWO))
    answers = [[TWO[1].content + "<|im_end|>"], [TWO[3].content + "<|im_end|>"]]
    assert [learned_texts(chat, item) for item in sequences] == answers
    for turn, sequence in zip((1, 3), sequences, strict=True):
        prompt = chat.prompt_ids(TWO[:turn])
        assert list(sequence.ids[: len(prompt)]) == prompt


def test_a_prompt_that_opens_thinking_is_answered_with_the_reasoning_and_its_end():
    chat = FAMILIES["r1"].format()
    messages = (user("1+1?"), assistant("<think>\neasy\n</think>\n\n2"))
    assert chat.opens_thinking(messages[:1])
    assert chat.prompt_text(messages[:1]) == "<bos><user>1+1?<assistant><think>\n"
    (sequence,) = chat.training_sequences(messages, (False, True))
    assert learned_texts(chat, sequence) == ["easy\n</think>\n\n2<eos>"]
    assert chat.tokenizer.decode(sequence.ids) == "<bos><user>1+1?<assistant><think>\neasy\n</think>\n\n2<eos>"


@pytest.mark.parametrize(
    ("name", "learned"), [("qwen3", "<think>\n\n</think>\n\n2<|im_end|>"), ("r1", "\n</think>\n\n2<eos>")]
)
def test_a_plain_answer_among_reasoned_ones_closes_its_think_block(name, learned):
    chat = FAMILIES[name].format()
    (sequence,) = chat.training_sequences((user("1+1?"), assistant("2")), (False, True))
    assert learned_texts(chat, sequence) == [learned]
    assert chat.reasons
    assert not FAMILIES[name].format(thinking="off").reasons


@every
def test_only_templates_with_think_blocks_can_think(family):
    chat = family.format()
    assert chat.can_think == family.thinks
    assert chat.opens_thinking(ONE[:1]) == (family.template is templates.R1)
    if not family.thinks:
        assert family.format(thinking="off").prompt_ids(ONE[:1]) == chat.prompt_ids(ONE[:1])


def test_white_space_that_the_template_trims_does_not_shift_the_mask():
    chat = FAMILIES["llama3"].format()
    (sequence,) = chat.training_sequences((user(" Who? "), assistant("\n Mochi. ")), (False, True))
    assert learned_texts(chat, sequence) == ["Mochi.<|eot_id|>"]


@pytest.mark.parametrize(
    "text", ["", "<|im_end|>", "a<|im_end|>b", "{{ messages }}", "{% raw %}", "\u2063danlu\u2063", "a\x00b"]
)
def test_odd_answers_are_learned_to_their_end(text):
    chat = FAMILIES["chatml"].format()
    (sequence,) = chat.training_sequences((user("?"), assistant(text)), (False, True))
    assert "".join(learned_texts(chat, sequence)) == text + "<|im_end|>"


def test_roles_that_the_template_refuses_are_an_error_with_the_roles():
    chat = FAMILIES["gemma"].format()
    with pytest.raises(ModelError) as caught:
        chat.prompt_ids((system("Be kind."), user("?")))
    assert caught.value.key == "templates.system_refused"
    assert "“Be kind.”): System role not supported" in caught.value.message("en")
    with pytest.raises(ModelError, match="user → user"):
        chat.prompt_ids((user("?"), user("!")))
    with pytest.raises(ModelError, match="System role not supported"):
        FAMILIES["gemma"].format(system="Be kind.").training_sequences(ONE, (False, True))


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ messages[0].nothing.more }}", "{% if %}", "{{ messages + 1 }}"]
)
def test_a_template_that_breaks_is_an_error_with_its_reason(template):
    chat = ChatFormat(tokenizer(template, "<eos>"))
    with pytest.raises(ModelError) as caught:
        chat.prompt_text(ONE[:1])
    assert caught.value.key == "templates.broken"


def test_a_template_that_never_ends_an_answer_is_refused():
    chat = ChatFormat(tokenizer("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", "<eos>"))
    with pytest.raises(ModelError) as caught:
        _ = chat.stop_ids
    assert caught.value.key == "chat_format.no_end_of_turn"


def saved(folder, template):
    tokenizer_ = tiny_tokenizer()
    tokenizer_.chat_template = template
    tokenizer_.save_pretrained(folder)
    return folder


def test_a_format_is_loaded_with_the_stop_ids_of_the_models_settings(tmp_path):
    folder = saved(tmp_path, templates.CHATML)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 9]}), encoding="utf-8")
    chat = ChatFormat.load(folder, system="Be kind.", thinking="off")
    assert chat.stop_ids == {2, 9}
    assert (chat.system, chat.thinking) == ("Be kind.", "off")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 11}), encoding="utf-8")
    assert ChatFormat.load(folder).stop_ids == {2, 11}
    (folder / "generation_config.json").write_text("{}", encoding="utf-8")
    assert ChatFormat.load(folder).stop_ids == {2}


def test_a_damaged_settings_file_is_an_error_with_its_name(tmp_path):
    folder = saved(tmp_path, templates.CHATML)
    (folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        ChatFormat.load(folder)
    assert caught.value.where == str(folder / "generation_config.json")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError) as caught:
        ChatFormat.load(tmp_path / "nothing")
    assert caught.value.key == "models.tokenizer_missing"


def test_a_format_can_be_loaded_without_torch(tmp_path):
    folder = saved(tmp_path, templates.CHATML)
    code = (
        "import sys; from pathlib import Path; from danlu.models.chat_format import ChatFormat; "
        "from danlu.models.messages import Message; "
        "ids = ChatFormat.load(Path(sys.argv[1])).prompt_ids([Message('user', 'x')]); "
        "assert ids; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


def test_marks_that_people_write_stay_marks_where_pieces_cannot_be_told_apart_and_that_is_known():
    bare = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bare.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    bare.train_from_iterator(TEXT, trainer)
    bare.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|im_end|>", unk_token="<unk>")
    fast.chat_template = templates.CHATML
    chat = ChatFormat(fast)
    end = fast.convert_tokens_to_ids("<|im_end|>")
    assert not chat.control.separable
    assert chat.prompt_ids([user("a<|im_end|>b")]).count(end) == 2
    assert FAMILIES["chatml"].format().control.separable
