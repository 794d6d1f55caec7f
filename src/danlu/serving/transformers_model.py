"""A model in memory and its generation, token by token, in a thread that can be told to stop.

Used by the child process of the ``transformers`` engine only: it imports torch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
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

_ADAPTERS = 32  # kept in memory; of rank 8 each is a hundredth of the base


@dataclass(frozen=True)
class Asked:
    """One generation; see ``engine.Sampling`` and ``engine.EngineRequest`` for the fields.

    Attributes:
        top_logprobs: report each token's log probability and so many of the likeliest; None for neither.
    """

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
    logit_bias: tuple[tuple[int, float], ...] = ()
    shown: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Likely:
    """A token's id and the natural logarithm of its probability."""

    id: int
    logprob: float


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: what can be printed after it; empty inside a multi-byte character and for tokens that end a turn.
        finish: why the generation ends here; None when it goes on.
        chosen: the token itself, where log probabilities are asked for.
        top: the likeliest at its place.
    """

    text: str
    finish: Literal["stop", "length"] | None = None
    chosen: Likely | None = None
    top: tuple[Likely, ...] = ()


class LocalModel:
    """A model that makes one answer at a time.

    Args:
        model: a causal language model of transformers, perhaps wrapped by peft.
        tokenizer: turns ids into text.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._adapters: dict[Path, str] = {}
        self._named = 0
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

    def use(self, adapter: Path | None) -> None:
        """Lay an adapter over the base for what comes next, or none; not while something is generated.

        A model that was loaded with an adapter keeps it, and takes no other.

        Raises:
            ModelError: there is no adapter in this folder, or it does not fit the base.
        """
        if adapter is None:
            if self._adapters:
                self._model.base_model.disable_adapter_layers()
            return
        name = self._adapters.get(adapter)
        if name is None:
            name = self._lay(adapter)
        self._adapters[adapter] = self._adapters.pop(adapter)  # used last
        self._model.base_model.enable_adapter_layers()
        self._model.set_adapter(name)

    def _lay(self, adapter: Path) -> str:
        """Load an adapter under a name of its own, in place of the one used longest ago where there are many."""
        from peft import PeftModel

        if not (adapter / "adapter_model.safetensors").is_file():
            raise ModelError("serving.weights_missing", path=str(adapter))
        self._named += 1
        name = f"adapter{self._named}"
        try:
            if not self._adapters:
                self._model = PeftModel.from_pretrained(self._model, str(adapter), name, is_trainable=False)
            else:
                self._model.load_adapter(str(adapter), name, is_trainable=False)
        except (RuntimeError, ValueError, KeyError) as error:  # what peft raises: shapes, names, settings
            raise ModelError("serving.weights_refused", path=str(adapter), reason=str(error)[:300]) from error
        self._model.eval()
        self._model.requires_grad_(False)
        self._adapters[adapter] = name
        if len(self._adapters) > _ADAPTERS:
            oldest = next(iter(self._adapters))
            self._model.delete_adapter(self._adapters.pop(oldest))
        return name

    def generate(self, asked: Asked) -> Generation:
        """Begin to generate in a thread."""
        return Generation(self._model, self._tokenizer, asked)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> list[float]:
        """Return the last token's state behind the last layer's norm, float32, shape [hidden], of length 1.

        The same as llama.cpp's pooling ``last``.
        """
        given = torch.tensor([list(ids)], device=self._model.device)  # int64, shape [1, T]
        base = self._model.get_base_model() if hasattr(self._model, "peft_config") else self._model
        state = base.model(input_ids=given, use_cache=False).last_hidden_state[0, -1].float()  # [hidden]
        return [float(value) for value in torch.nn.functional.normalize(state, dim=0)]

    def token_text(self, token: int) -> str:
        """Return a token as text; a part of a character as the replacement character."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))


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
        watch = None
        if asked.top_logprobs is not None:
            watch = _Watch(asked.top_logprobs)
            processors.append(watch)
        if asked.logit_bias:
            processors.append(_Bias(asked.logit_bias))
        if asked.presence_penalty or asked.frequency_penalty:
            processors.append(_CountPenalty(prompt.shape[1], asked.presence_penalty, asked.frequency_penalty))
        self._model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([_WhenTold(self._stopped)]),
            streamer=_Streamer(self._tokenizer, frozenset(stop_ids), asked, watch, self._put),
        )


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Turns the ids that ``generate`` hands over into tokens with text."""

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: frozenset[int], asked: Asked, watch: _Watch | None, put: Any
    ) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._left = asked.max_tokens
        self._watch = watch
        self._put = put
        # Special tokens that are wanted as text (marks of calls); the others are not printed.
        self._shown = {i: text for text in asked.shown if (i := tokenizer.token_to_id(text)) is not None}
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
        text = self._shown.get(token) or self._text.step(self._tokenizer, token) or ""
        finish: Literal["length"] | None = "length" if self._left == 0 else None
        if self._watch is None:
            self._put(Token(text, finish))
            return
        chosen, top = self._watch.likely(token)
        self._put(Token(text, finish, chosen, top))

    def end(self) -> None:
        """Nothing is held back: an unfinished character at the very end cannot be printed."""


class _WhenTold(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation when its reader has gone."""

    def __init__(self, told: threading.Event) -> None:
        self._told = told

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return a flag for each row, bool, shape [1]."""
        return torch.full((input_ids.shape[0],), self._told.is_set(), device=input_ids.device, dtype=torch.bool)


class _Watch(LogitsProcessor):  # type: ignore[misc]
    """Keeps the probabilities of the newest place, before temperature and nucleus change them."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._logprobs = torch.zeros(0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape [1, V], as they are."""
        self._logprobs = torch.log_softmax(scores[0].float(), dim=-1)
        return scores

    def likely(self, token: int) -> tuple[Likely, tuple[Likely, ...]]:
        """Return the chosen token and the likeliest ones."""
        values, ids = torch.topk(self._logprobs, self._top)
        top = tuple(Likely(int(i), float(value)) for value, i in zip(values, ids, strict=True))
        return Likely(token, float(self._logprobs[token])), top


class _Bias(LogitsProcessor):  # type: ignore[misc]
    """Adds a bias to the logits of single tokens."""

    def __init__(self, pairs: Sequence[tuple[int, float]]) -> None:
        self._pairs = pairs

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape [1, V], with the bias."""
        scores = scores.clone()
        for token, bias in self._pairs:
            scores[:, token] += bias
        return scores


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
