"""A model in memory and its generation, token by token, in a thread that can be told to stop.

Used by the child process of the ``transformers`` engine only: it imports torch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from danlu.errors import EngineError, ModelError
from danlu.models.load import load_model
from danlu.models.new_tokens import grow_for


@dataclass(frozen=True)
class Asked:
    """One generation; see ``engine.Sampling`` for the fields."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: what can be printed after it; empty inside a multi-byte character and for tokens that end a turn.
        finish: why the generation ends here; None when it goes on.
    """

    text: str
    finish: Literal["stop", "length"] | None = None


class LocalModel:
    """A model that makes one answer at a time.

    Args:
        model: a causal language model of transformers, perhaps wrapped by peft.
        tokenizer: turns ids into text.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.vocabulary: int = model.get_input_embeddings().weight.shape[0]

    @classmethod
    def load(cls, weights: Path, adapter: Path | None, tokenizer: Path, threads: int) -> LocalModel:
        """Load weights in bf16 on a GPU, in fp32 on a processor (the reference must not round).

        Args:
            weights: folder of safetensors.
            adapter: folder in peft's format, or None.
            tokenizer: folder with ``tokenizer.json``.
            threads: processor threads.

        Raises:
            ModelError: something is missing or cannot be loaded.
        """
        torch.set_num_threads(threads)
        cuda = torch.cuda.is_available()
        if not weights.is_dir():
            raise ModelError("serving.weights_missing", path=str(weights))
        model: Any = load_model(weights, "bfloat16" if cuda else "float32")
        if adapter is not None:
            from peft import PeftModel

            if not (adapter / "adapter_model.safetensors").is_file():
                raise ModelError("serving.weights_missing", path=str(adapter))
            grow_for(model, adapter)
            model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
        model.eval()
        model.requires_grad_(False)
        return cls(model.to("cuda" if cuda else "cpu"), Tokenizer.from_file(str(tokenizer / "tokenizer.json")))

    def generate(self, asked: Asked) -> Generation:
        """Begin to generate in a thread."""
        return Generation(self._model, self._tokenizer, asked)


class Generation(AsyncIterator[Token]):
    """A running generation: iterate for its tokens, ``end()`` to stop it."""

    def __init__(self, model: Any, tokenizer: Tokenizer, asked: Asked) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._tokens: asyncio.Queue[Token | EngineError] = asyncio.Queue()
        self._stopped = threading.Event()
        self._done = asyncio.Event()
        self._over = False
        threading.Thread(target=self._work, name="generation", daemon=True).start()

    async def __anext__(self) -> Token:
        """Return the next token.

        Raises:
            EngineError: the model failed.
        """
        if self._over:
            raise StopAsyncIteration
        token = await self._tokens.get()
        if isinstance(token, EngineError):
            self._over = True
            raise token
        self._over = token.finish is not None
        return token

    async def end(self) -> None:
        """Stop at the next token and wait until the thread has stopped."""
        self._stopped.set()
        await self._done.wait()

    def _work(self) -> None:
        try:
            self._generate()
        except (RuntimeError, ValueError, IndexError) as error:  # what torch and transformers raise: memory, shapes
            self._put(EngineError("serving.engine_gone", reason=str(error)[:300]))
        finally:
            self._loop.call_soon_threadsafe(self._done.set)

    def _put(self, item: Token | EngineError) -> None:
        self._loop.call_soon_threadsafe(self._tokens.put_nowait, item)

    @torch.inference_mode()
    def _generate(self) -> None:
        asked = self._asked
        stop_ids = list(asked.stop_ids) or _configured_stops(self._model)
        if asked.seed is not None:
            torch.manual_seed(asked.seed)
        sampling = asked.temperature > 0
        config = GenerationConfig(
            max_new_tokens=asked.max_tokens,
            do_sample=sampling,
            temperature=asked.temperature if sampling else None,
            top_p=asked.top_p if sampling else None,
            top_k=asked.top_k if sampling else None,
            min_p=asked.min_p if sampling and asked.min_p else None,
            repetition_penalty=asked.repetition_penalty,
            eos_token_id=stop_ids or None,
            pad_token_id=stop_ids[0] if stop_ids else 0,
            use_cache=True,
        )
        prompt = torch.tensor([asked.prompt_ids], device=self._model.device)  # int64, shape [1, T]
        processors: list[LogitsProcessor] = []
        if asked.presence_penalty or asked.frequency_penalty:
            processors.append(_CountPenalty(prompt.shape[1], asked.presence_penalty, asked.frequency_penalty))
        self._model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([_WhenTold(self._stopped)]),
            streamer=_Streamer(self._tokenizer, frozenset(stop_ids), asked.max_tokens, self._put),
        )


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Turns the ids that ``generate`` hands over into tokens with text."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int], most: int, put: Any) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._left = most
        self._put = put
        self._text = DecodeStream(skip_special_tokens=True)
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, shape [1, T], at the first call and one id, shape [1], at each later call."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        token = int(value.reshape(-1)[0])
        self._left -= 1
        if token in self._stop_ids:
            self._put(Token("", "stop"))
            return
        text = self._text.step(self._tokenizer, token) or ""
        self._put(Token(text, "length" if self._left == 0 else None))

    def end(self) -> None:
        """Nothing is held back: an unfinished character at the very end cannot be printed."""


class _WhenTold(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation when its reader has gone."""

    def __init__(self, told: threading.Event) -> None:
        self._told = told

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return a flag for each row, bool, shape [1]."""
        return torch.full((input_ids.shape[0],), self._told.is_set(), device=input_ids.device, dtype=torch.bool)


class _CountPenalty(LogitsProcessor):  # type: ignore[misc]
    """OpenAI's presence and frequency penalties over the generated ids (API reference, "frequency and presence")."""

    def __init__(self, prompt_length: int, presence: float, frequency: float) -> None:
        self._start = prompt_length
        self._presence = presence
        self._frequency = frequency

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape [1, V], less what the ids so far, shape [1, T], cost."""
        counts = torch.bincount(input_ids[0, self._start :], minlength=scores.shape[1]).to(scores.dtype)
        return scores - self._frequency * counts - self._presence * (counts > 0)


def _configured_stops(model: Any) -> list[int]:
    value = model.generation_config.eos_token_id
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [int(value)]
