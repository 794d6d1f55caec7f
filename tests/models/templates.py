"""Chat templates in the manner of the model families, written for the tests: each with what is peculiar to it."""

from __future__ import annotations

CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Puts a system prompt of its own before conversations that have none.
QWEN25 = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + CHATML
)

# Strips the reasoning of all but the last answer; writes an empty think block when thinking is switched off.
QWEN3 = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{%- set parts = m.content.split('</think>') %}"
    "{%- set text = parts[-1].lstrip('\n') %}"
    "{%- set reason = parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' %}"
    "{%- if loop.index0 > ns.last and (loop.last or reason) %}"
    "{{- '<|im_start|>assistant\n<think>\n' + reason + '\n</think>\n\n' + text + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + text + '<|im_end|>\n' }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)

# Opens <think> in the prompt, drops everything up to </think> from answers, has no line break after roles.
R1 = (
    "{{ '<bos>' }}{%- for m in messages %}"
    "{%- if m.role == 'system' %}{{ m.content }}{%- endif %}"
    "{%- if m.role == 'user' %}{{ '<user>' + m.content }}{%- endif %}"
    "{%- if m.role == 'assistant' %}{{ '<assistant>' + m.content.split('</think>')[-1] + '<eos>' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<assistant><think>\n' }}{%- endif %}"
)

# Headers around roles, contents trimmed, a token at the end of a turn that is not the end of the text.
LLAMA3 = (
    "{{ '<bos>' }}{%- for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)

# Knows no system role, calls the assistant "model", and insists on turns in order.
GEMMA = (
    "{{ '<bos>' }}{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{%- endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<user>", "<assistant>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
THINK = ["<think>", "</think>"]
