"""A tiny random model in both shapes, and one event loop in which engines live across tests.

The model's weights are random but fixed; its end-of-turn token can never win under greedy decoding, so an answer at
temperature 0 goes on until ``max_tokens``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.serving.engine import EngineSpec, Finish, GatewayEvent, GenerationRequest, Sampling, TextPiece
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.supervisor import ChildEngine, RestartPolicy

os.environ.setdefault("OMP_NUM_THREADS", "1")

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

CONTEXT = 65536
SPECIALS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QUICK = RestartPolicy(first_pause=0.05, longest_pause=0.2, probe_every=0.3, probe_timeout=0.5, probe_failures=2)


@pytest.fixture(scope="session")
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer llama with a byte-level tokenizer, as safetensors."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("i", "n")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(str(folder))

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[-len(SPECIALS) :] = 0.0  # logit 0 never is the highest of 260
    model.save_pretrained(str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a GGUF file, in fp32."""
    import gguf
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    weights = load_file(str(tiny_folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(131072)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(size)])
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_token_types([normal] * (size - len(SPECIALS)) + [control] * len(SPECIALS))
    writer.add_token_merges(["Ġ t", "h e", "i n"])
    writer.add_eos_token_id(size - 1)
    writer.add_add_bos_token(False)

    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(2):
        names |= {f"model.layers.{layer}.{a}.weight": f"blk.{layer}.{b}.weight" for a, b in parts.items()}
    for name, tensor in weights.items():
        if "q_proj" in name or "k_proj" in name:  # llama.cpp rotates neighbours, transformers rotates halves
            tensor = tensor.reshape(2, 2, 16, 64).swapaxes(1, 2).reshape(64, 64)
        writer.add_tensor(names[name], tensor.astype("float32").copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def prompts(tiny_folder: Path) -> ChatFormat:
    return ChatFormat.load(tiny_folder)


@pytest.fixture(scope="session")
def llamacpp_spec(tiny_gguf: Path) -> EngineSpec:
    return EngineSpec(kind="llamacpp", model_id="tiny", weights=tiny_gguf, context=CONTEXT, slots=2, threads=1)


@pytest.fixture(scope="session")
def transformers_spec(tiny_folder: Path) -> EngineSpec:
    return EngineSpec(
        kind="transformers",
        model_id="tiny",
        weights=tiny_folder,
        tokenizer=tiny_folder,
        context=CONTEXT,
        slots=1,
        threads=1,
    )


@pytest.fixture(scope="session")
def gateway(run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat) -> Iterator[Gateway]:
    """A gateway over a real llama.cpp child, shared by tests that leave it whole."""
    door = run(_started(Gateway(ChildEngine(llamacpp_spec, QUICK), prompts, Limits(queue=64))))
    yield door
    run(door.stop())


@pytest.fixture(scope="session")
def reference(run: Run[Any], transformers_spec: EngineSpec, prompts: ChatFormat) -> Iterator[Gateway]:
    """A gateway over a real transformers child, shared in the same way."""
    door = run(_started(Gateway(ChildEngine(transformers_spec, QUICK), prompts, Limits(queue=64))))
    yield door
    run(door.stop())


async def _started(door: Gateway) -> Gateway:
    await door.start()
    await door.wait_ready(120)
    return door


async def with_gateway(door: Gateway, test: Callable[[Gateway], Awaitable[T]]) -> T:
    """Start a gateway, hand it to ``test``, stop it whatever happens."""
    try:
        await _started(door)
        return await test(door)
    finally:
        await door.stop()


def asking(text: str = "hi", max_tokens: int = 16, **settings: Any) -> GenerationRequest:
    sampling = Sampling(max_tokens=max_tokens, **{"temperature": 0.0, "top_p": 1.0, **settings})
    return GenerationRequest(messages=(Message("user", text),), sampling=sampling)


async def collect(events: AsyncGenerator[GatewayEvent, None]) -> tuple[str, str, Finish]:
    """Return content, reasoning and the account of an answer."""
    content, reasoning = "", ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextPiece):
                content, reasoning = content + event.content, reasoning + event.reasoning
            elif isinstance(event, Finish):
                return content, reasoning, event
    raise AssertionError("no Finish")


async def until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Wait until ``condition`` holds; the test fails when it does not in time."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
