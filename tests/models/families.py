"""Chat templates that behave like those of the model families, in our own words, with tools, calls and reasoning.

``templates`` has shorter ones, each with one peculiarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from danlu.models.chat_format import ChatFormat
from tests.tiny import TEXT

CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# A system prompt of its own, a block of tools in the system turn, what tools answer in a user turn, joined.
_QWEN_TOOLS = (
    "{%- if tools %}{{- '\n\n# Tools\nEach as JSON within <tools></tools>:\n<tools>' }}"
    "{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}"
    '{{- \'\n</tools>\nCall one so: <tool_call>{"name": …, "arguments": …}</tool_call>\' }}{%- endif %}'
)
_QWEN_CALLS = (
    "{%- for call in m.tool_calls or [] %}"
    "{%- if not loop.first or m.content %}{{- '\n' }}{%- endif %}"
    '{{- \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}\n</tool_call>' }}{%- endfor %}"
)
_QWEN_RESULTS = (
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
)
QWEN25 = (
    "{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content }}"
    "{%- else %}{{- 'You are a model, and help.' }}{%- endif %}" + _QWEN_TOOLS + "{{- '<|im_end|>\n' }}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}" + _QWEN_RESULTS +
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' + (m.content or '') }}" + _QWEN_CALLS +
    "{{- '<|im_end|>\n' }}"
    "{%- elif not (m.role == 'system' and loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)  # fmt: skip

# Reasoning in a field or in the text, written only behind the last question; enable_thinking; tools as before.
QWEN3 = (
    "{%- if messages[0].role == 'system' or tools %}{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}" + _QWEN_TOOLS +
    "{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(asked=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.asked = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}" + _QWEN_RESULTS +
    "{%- elif m.role == 'assistant' %}"
    "{%- set said = m.content or '' %}{%- set thought = '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in said %}"
    "{%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set said = said.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > ns.asked and (loop.last or thought) %}"
    "{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') }}"
    "{%- else %}{{- said }}{%- endif %}" + _QWEN_CALLS + "{{- '<|im_end|>\n' }}"
    "{%- elif not (m.role == 'system' and loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)  # fmt: skip

# Begins a text itself, opens <think> in the prompt and drops all up to </think> from answers; calls only in turns that
# say nothing, their arguments as JSON text.
R1 = (
    "{{- bos_token }}"
    "{%- for m in messages %}{%- if m.role == 'system' %}{{- m.content }}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}"
    "{%- elif m.role == 'assistant' and m.content is not defined %}"
    "{{- '<｜Assistant｜><｜tool▁calls▁begin｜>' }}"
    "{%- for call in m.tool_calls %}{{- '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + call.function.name }}"
    "{{- '\n```json\n' + call.function.arguments + '\n```<｜tool▁call▁end｜>' }}{%- endfor %}"
    "{{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}"
    "{%- elif m.role == 'assistant' %}"
    "{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{%- elif m.role == 'tool' %}{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- endif %}"
)

# Headers, a date in the system turn, contents trimmed, one call a turn in place of what is said, results as JSON.
LLAMA3 = (
    "{{- bos_token }}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n' + system + '<|eot_id|>' }}"
    "{%- for m in rest %}"
    "{%- if m.role == 'tool' %}"
    "{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson) + '<|eot_id|>' }}"
    "{%- elif m.tool_calls %}"
    "{%- if m.tool_calls | length != 1 %}{{- raise_exception('This model calls one tool at a time') }}{%- endif %}"
    '{{- \'<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "\' + m.tool_calls[0].function.name }}'
    "{{- '\", \"parameters\": ' + (m.tool_calls[0].function.arguments | tojson) + '}<|eot_id|>' }}"
    "{%- else %}"
    "{%- if loop.first and tools %}{{- '<|start_header_id|>user<|end_header_id|>\n\nTools: ' + (tools | tojson) }}"
    "{{- '\n\n' + (m.content | trim) + '<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + (m.content | trim) + '<|eot_id|>' }}"
    "{%- endif %}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)

# Turns in order, or nothing; the system prompt moves on into the last question.
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content + '\n\n' %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}"
    "{%- set ns = namespace(asked=-1) %}"
    "{%- for m in rest %}{%- if m.role == 'user' %}{%- set ns.asked = loop.index0 %}{%- endif %}{%- endfor %}"
    "{{- bos_token }}"
    "{%- for m in rest %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, roles must alternate user/assistant') }}{%- endif %}"
    "{%- if m.role == 'user' %}{{- '[INST] ' + (system if loop.index0 == ns.asked else '') + m.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}"
    "{%- endfor %}"
)

# The assistant is called model; the system prompt stands in the first question; contents trimmed, turns in order.
GEMMA3 = (
    "{{- bos_token }}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content + '\n\n' %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}"
    "{%- for m in rest %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}"
    "{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{- (system if loop.first else '') + (m.content | trim) + '<end_of_turn>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<s>", "</s>", "[INST]", "[/INST]",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
ORDINARY = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        template: its chat template.
        bos: what begins a text; empty for nothing.
        eos: the tokenizer's end.
        end: what ends an answer.
        system: where the system prompt goes.
        tools: how much of tools it writes.
        thinks: it knows think blocks.
        trims: it trims white space from what is said.
        strict: it wants turns in order.
    """

    template: str
    bos: str
    eos: str
    end: str
    system: Literal["turn", "moved", "question"] = "turn"
    tools: Literal["all", "calls", "none"] = "none"
    thinks: bool = False
    trims: bool = False
    strict: bool = False

    def format(self, **options) -> ChatFormat:
        return ChatFormat(family_tokenizer(self.template, self.bos, self.eos), **options)


FAMILIES = {
    "chatml": Family(CHATML, "", "<|im_end|>", "<|im_end|>"),
    "qwen2.5": Family(QWEN25, "", "<|im_end|>", "<|im_end|>", tools="all"),
    "qwen3": Family(QWEN3, "", "<|im_end|>", "<|im_end|>", tools="all", thinks=True),
    "r1": Family(
        R1, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", tools="calls", thinks=True
    ),
    "llama3": Family(LLAMA3, "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>", tools="all", trims=True),
    "mistral": Family(MISTRAL, "<s>", "</s>", "</s>", system="moved", strict=True),
    "gemma3": Family(GEMMA3, "<bos>", "<eos>", "<end_of_turn>", system="question", trims=True, strict=True),
}


@cache
def family_tokenizer(template: str, bos: str, eos: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the marks of every family, and one template."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bare.train_from_iterator(TEXT, trainer)
    bare.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    bare.add_tokens([AddedToken(token, special=False, normalized=False) for token in ORDINARY])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token=bos or None, eos_token=eos, pad_token="<|endoftext|>"
    )
    fast.chat_template = template
    return fast
