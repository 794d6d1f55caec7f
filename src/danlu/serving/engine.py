"""What an engine is: the values that go in, the events that come out, and the interface that every kind keeps.

An engine is a process, here or elsewhere, that turns prompt token ids into text. Not for admission, timeouts or
think blocks: the gateway does these the same way for every engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from danlu.models.messages import Message

EngineKind = Literal["llamacpp", "transformers", "openai"]
State = Literal["stopped", "loading", "ready", "restarting", "failed"]
FinishReason = Literal["stop", "length", "tool_calls"]
Wire = Literal["completions", "chat"]


@dataclass(frozen=True)
class EngineSpec:
    """How to start or reach an engine.

    Attributes:
        kind: which engine.
        model_id: the name the model is served under.
        weights: a GGUF file (llamacpp) or a folder of safetensors (transformers); None for ``openai``.
        adapter: a folder in peft's format, laid over ``weights`` (transformers), or to be loaded by the server, which
            reads the same disk (openai).
        tokenizer: a folder with ``tokenizer.json`` (transformers only; a GGUF file carries its own).
        url: base URL that ends in ``/v1`` (openai only).
        key_variable: environment variable that holds the key of ``url``.
        wire: what the engine is asked: token ids (``completions``) or messages (``chat``).
        context: prompt and answer together, in tokens, of one conversation.
        slots: answers generated at the same time.
        threads: processor threads; 0 means one a physical core.
        log: file that the child's output is appended to.
    """

    kind: EngineKind
    model_id: str
    weights: Path | None = None
    adapter: Path | None = None
    tokenizer: Path | None = None
    url: str | None = None
    key_variable: str = "DANLU_ENGINE_KEY"
    wire: Wire = "completions"
    context: int = 2048
    slots: int = 4
    threads: int = 0
    log: Path | None = None


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen and when an answer ends.

    Attributes:
        max_tokens: upper bound of the answer; engines never run without one.
        temperature: 0 means the most likely token every time.
        top_p: nucleus; 1 switches it off.
        top_k: number of candidates; 0 switches it off.
        min_p: least share of the best candidate's probability; 0 switches it off.
        seed: for repeatable sampling; None for a random one.
        stop: the answer ends before the first of these; searched in the visible content only.
        repetition_penalty: 1 switches it off.
        presence_penalty: 0 switches it off.
        frequency_penalty: 0 switches it off.
        logit_bias: what is added to the logits of single tokens: pairs of token id and bias.
    """

    max_tokens: int
    temperature: float = 0.3
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where a request comes from, for the account that is kept of it; none of this reaches the model.

    Attributes:
        name: the assistant or model that was asked for.
        route: the address, or ``chat`` for the web page.
        request_id: the same in the answer's header, in the log and at the engine.
        key_id: the API key; None for callers without one.
    """

    name: str = ""
    route: str = ""
    request_id: str = ""
    key_id: str | None = None


@dataclass(frozen=True)
class Form:
    """What an answer has to look like.

    Attributes:
        schema: JSON Schema, as text, that the content follows; None for free text.
        tools: tools that may be called, OpenAI's JSON list as text; empty for none.
        must_call: names of the tools of which one has to be called; empty where the model decides.
        one_call: the answer ends with its first call.
        top_logprobs: report each token's log probability, and so many of the likeliest beside it; None for neither.
    """

    schema: str | None = None
    tools: str = ""
    must_call: tuple[str, ...] = ()
    one_call: bool = False
    top_logprobs: int | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """What a caller asks of a gateway: either ``messages`` or ``prompt_ids``.

    Attributes:
        messages: the conversation; the saved system prompt is added when none is given.
        prompt_ids: token ids ready for the model, for callers that render themselves.
        sampling: settings of this answer.
        form: what it has to look like.
        origin: who asks.
    """

    messages: tuple[Message, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=512))
    form: Form = field(default_factory=Form)
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class EngineRequest:
    """What a gateway asks of an engine.

    Attributes:
        prompt_ids: the rendered prompt; used by the ``completions`` wire.
        messages: the conversation; used by the ``chat`` wire.
        sampling: settings; ``sampling.stop`` is the gateway's business and is not sent.
        stop_ids: tokens that end a turn, for engines that do not know them from their weights.
        form: schema and log probabilities; tools only on the ``chat`` wire, elsewhere they stand in the prompt.
        shown: special tokens that are wanted as text (marks of tool calls); others are not printed.
        request_id: sent along, so that an engine's log can be matched with ours.
        slot: of llama.cpp's, in which the prompt's beginning may be cached; None where the engine decides.
        adapter: laid over the base for this answer (``sharing``); None for what the engine was started with.
    """

    prompt_ids: tuple[int, ...]
    messages: tuple[Message, ...]
    sampling: Sampling
    stop_ids: tuple[int, ...] = ()
    form: Form = field(default_factory=Form)
    shown: tuple[str, ...] = ()
    request_id: str = ""
    slot: int | None = None
    adapter: Path | None = None


@dataclass(frozen=True)
class EmbeddingRequest:
    """Texts to be embedded; engines on the ``completions`` wire take the ids, others the texts.

    Attributes:
        texts: what is to be embedded.
        ids: the same as token ids, one tuple a text; empty on the ``chat`` wire.
        request_id: see ``EngineRequest``.
        adapter: see ``EngineRequest``.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...] = ()
    request_id: str = ""
    adapter: Path | None = None


@dataclass(frozen=True)
class Embeddings:
    """Vectors of length 1, one a text, and how many tokens were read for them."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int


@dataclass(frozen=True)
class TokenLogprob:
    """A token and how likely it was.

    Attributes:
        text: the token as text; a part of a character as the replacement character.
        data: its bytes; None where the engine does not tell.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place, if asked for.
    """

    text: str
    data: bytes | None
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Call:
    """A call of a tool that an answer makes.

    Attributes:
        id: made by the gateway or by a foreign engine.
        name: the tool.
        arguments: a JSON object as text.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class EnginePiece:
    """Raw text as an engine sends it; an empty one is a sign of life (the prompt is being read).

    Attributes:
        text: generated text, think tags included.
        reasoning: thinking that the engine itself has separated (``chat`` wire only).
        tokens: tokens generated since the last piece.
        logprobs: of these tokens, where asked for.
        calls: complete calls of tools (``chat`` wire only).
    """

    text: str
    reasoning: str = ""
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class EngineFinish:
    """The engine's own account of a finished generation; counts are None when it gives none."""

    reason: FinishReason
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True)
class Queued:
    """The request waits; sent at once and whenever its place changes.

    Attributes:
        position: 1 is next.
        eta_seconds: estimate until it starts; None before any answer has been measured.
    """

    position: int
    eta_seconds: float | None


@dataclass(frozen=True)
class Started:
    """The request has a slot and goes to the engine."""

    prompt_tokens: int


@dataclass(frozen=True)
class TextPiece:
    """What to append to an answer; not all parts are empty.

    Attributes:
        content: of the answer.
        reasoning: of the thinking before it.
        tokens: generated since the last piece.
        logprobs: of the tokens that make up ``content``.
        calls: of tools, each whole.
    """

    content: str
    reasoning: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The answer is complete.

    Attributes:
        reason: ``stop`` (the model ended, or a stop string came), ``length``, or ``tool_calls``.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens generated, thinking included.
        cached_tokens: prompt tokens that did not have to be read again.
        seconds: from the slot to the end.
        first_token_seconds: from the slot to the first token.
        reasoning_seconds: time spent thinking; None without thinking.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    seconds: float
    first_token_seconds: float | None
    reasoning_seconds: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """Return the rate of generation after the first token; None for fewer than two tokens."""
        span = self.seconds - (self.first_token_seconds or 0.0)
        return (self.completion_tokens - 1) / span if self.completion_tokens > 1 and span > 0 else None


GatewayEvent = Queued | Started | TextPiece | Finish


@dataclass(frozen=True)
class EngineState:
    """Where an engine stands; ``detail`` says why, in the words of the error catalogue or the engine's own."""

    state: State
    detail: str | None = None
    restarts: int = 0


StateListener = Callable[[EngineState], None]


class Engine(Protocol):
    """The interface of every engine. All methods run in one event loop."""

    spec: EngineSpec

    @property
    def state(self) -> EngineState:
        """Return where the engine stands, without waiting."""
        ...

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change of state; returns a function that ends it."""
        ...

    def expect(self) -> None:
        """Say ``loading`` before the start, so that callers wait."""
        ...

    async def start(self) -> None:
        """Begin to start; returns before the engine is ready (``wait_ready``)."""
        ...

    async def stop(self) -> None:
        """End the engine and every process of it."""
        ...

    async def wait_ready(self, timeout: float) -> None:
        """Wait until answers can be asked for.

        Raises:
            EngineError: the engine has failed or is stopped.
            EngineTimeoutError: it is not ready after ``timeout`` seconds.
        """
        ...

    def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate; the last event is an ``EngineFinish``. Closing the generator stops the engine's work.

        Raises:
            EngineError: the engine refused, ended or sent something that is not its wire format.
        """
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            EngineError: the engine refused (many cannot do this), ended or answered with something else.
        """
        ...
