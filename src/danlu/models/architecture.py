"""What a model's ``config.json`` says, as numbers: the base of size, memory and compatibility questions.

Reads configuration only; no weights and no framework. Not for deciding a plan (``danlu.planning``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from danlu.errors import ModelError

Method = Literal["lora", "qlora", "freeze", "full"]

# Families that are trained, evaluated and served; others may load, but nothing here was tested with them.
SUPPORTED_TYPES: Final = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text", "gemma3")

# Beside the bits of a quantised weight: one 8-bit scale for 64 weights and a second level of scales (QLoRA, arXiv
# 2305.14314, section 3: 0.127 bits a parameter); in bytes.
_QUANTISED_SCALES: Final = 0.127 / 8
_MEASURED_KEPT: Final = 2.6
# Python, torch and its libraries in one process, before the first weight (measured on Linux, CPU build).
_PROCESS_BYTES: Final = 600_000_000


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder-only transformer.

    Attributes:
        type: ``model_type`` of transformers, for example ``qwen2``.
        hidden_size: width of the residual stream.
        intermediate_size: width inside of the gated feed-forward layer.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        vocab_size: rows of the embedding (with padding rows).
        tied: whether the output head is the embedding.
        attention_bias: whether q, k and v have a bias.
        qk_norm: whether q and k are normalised per head.
        max_context: positions the model was made for, tokens.
        norms: normalisations per block.
    """

    type: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    attention_bias: bool = False
    qk_norm: bool = False
    max_context: int = 2048
    norms: int = 2

    @property
    def linear_parameters(self) -> int:
        """Weights of the seven matrices of all blocks: what LoRA adapts and QLoRA quantises."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.hidden_size * (2 * q + 2 * kv + 3 * self.intermediate_size)

    @property
    def parameters(self) -> int:
        """All parameters: matrices, biases, norms, embedding, and the head if it is not the embedding."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        small = self.norms * self.hidden_size
        small += (q + 2 * kv) if self.attention_bias else 0
        small += 2 * self.head_dim if self.qk_norm else 0
        embedding = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.linear_parameters + self.layers * small + self.hidden_size + embedding

    def lora_parameters(self, rank: int) -> int:
        """Parameters of a LoRA adapter of this rank on all seven matrices: ``rank * (rows + columns)`` each."""
        h, m = self.hidden_size, self.intermediate_size
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * rank * (2 * (h + q) + 2 * (h + kv) + 3 * (h + m))

    def kv_cache_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Bytes of the key/value cache of ``tokens`` tokens of one conversation."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value * tokens

    def activation_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Estimate what the backward pass needs of ``tokens`` tokens that are computed at once, without recomputation.

        Inputs of norms and matrices, q, k, v, gate, up and their product are ``4 h + 2 q + 2 kv + 3 m`` values a token
        and block; what else autograd keeps (norms in fp32, rotated heads, the adapter's own products) and the
        temporaries of a pass make it 2.6 times that: measured on SmolLM2-135M with an adapter of rank 16 in fp32,
        2.5 to 2.8 MB a token.
        """
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        values = 4 * self.hidden_size + 2 * q + 2 * kv + 3 * self.intermediate_size
        return round(_MEASURED_KEPT * tokens * self.layers * values * bytes_per_value)

    def training_bytes(
        self, method: Method, tokens: int = 1024, rank: int = 8, value_bytes: int = 2, bits: int = 4
    ) -> int:
        """Estimate the peak memory of training, before anything is measured.

        With P parameters, L of them in the block matrices, A in the adapter, V bytes a frozen weight:

        - weights: ``V P``; qlora ``0.516 L + V (P - L)`` in 4 bits (NF4 with double quantisation)
        - what is trained, in fp32, with its gradient and the two moments of Adam: ``16`` bytes each; lora and qlora
          train A, full all of P instead of the frozen weights, freeze about an eighth of P
        - activations (``activation_bytes``), no recomputation
        - the process itself, 0.6 GB

        The vocabulary head works in chunks of at most 0.1 GB and is left out.

        Args:
            method: how it is trained.
            tokens: tokens of one micro-batch.
            rank: rank of the adapter.
            value_bytes: bytes of a frozen weight and of an activation; what ``full`` trains is fp32 whatever it says.
            bits: bits of quantised matrices.

        Returns:
            Bytes. The plan replaces this by a measurement on the machine.
        """
        weights: float = value_bytes * self.parameters
        trained = self.lora_parameters(rank)
        match method:
            case "qlora":
                linear = self.linear_parameters
                weights = (bits / 8 + _QUANTISED_SCALES) * linear + value_bytes * (self.parameters - linear)
            case "full":
                weights, trained = 0, self.parameters
            case "freeze":
                trained = self.parameters // 8
                weights -= value_bytes * trained
        return int(weights + 16 * trained + self.activation_bytes(tokens, value_bytes) + _PROCESS_BYTES)


class Traits(TypedDict):
    """What a family implies, whatever the size."""

    attention_bias: bool
    qk_norm: bool
    norms: int


def family_traits(kind: str) -> Traits:
    """Return what the model classes of transformers build for a ``model_type`` without being told."""
    gemma = kind.startswith("gemma3")
    return Traits(attention_bias=kind == "qwen2", qk_norm=kind == "qwen3" or gemma, norms=4 if gemma else 2)


def read_architecture(folder: Path) -> Architecture:
    """Read ``config.json`` of a model folder.

    Raises:
        ModelError: there is none, it is damaged, or the model needs what Danlu does not have.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError("models.config_missing", str(folder))
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config["model_type"])
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ModelError("models.config_damaged", str(path), reason=str(error)) from error
    if kind not in SUPPORTED_TYPES:
        key = "models.remote_code" if "auto_map" in config else "models.architecture_unsupported"
        raise ModelError(key, str(path), type=kind, supported=", ".join(SUPPORTED_TYPES))
    if "quantization_config" in config:
        method = str(config["quantization_config"].get("quant_method", "?"))
        raise ModelError("models.already_quantised", str(path), method=method)
    try:
        return _architecture(kind, config.get("text_config", config))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("models.config_damaged", str(path), reason=f"{type(error).__name__}: {error}") from error


def _architecture(kind: str, config: dict[str, Any]) -> Architecture:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    traits = family_traits(kind)
    traits["attention_bias"] |= bool(config.get("attention_bias", False))
    return Architecture(
        type=kind,
        hidden_size=hidden,
        intermediate_size=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocab_size=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", kind.startswith("gemma3"))),
        max_context=int(config.get("max_position_embeddings") or 2048),
        **traits,
    )
