"""What the loop needs to know, every value decided. The planner makes these; the loop decides nothing."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from danlu.training.preference_settings import PreferenceSettings

Scheduler = Literal["linear", "cosine", "constant", "warmup_stable_decay"]
LoraInit = Literal["default", "pissa"]
Method = Literal["lora", "qlora", "full", "freeze"]
ADAPTER_METHODS: Final = ("lora", "qlora")
Dtype = Literal["float32", "bfloat16"]


class LoraSettings(BaseModel):
    """The adapter, in peft's terms.

    Attributes:
        r: rank.
        lora_alpha: its output is multiplied by ``lora_alpha / r``, or by ``lora_alpha / sqrt(r)`` with rsLoRA.
        lora_dropout: share of its inputs dropped at random.
        target_modules: which matrices get one.
        use_rslora: rank-stabilised scale (arXiv 2312.03732).
        use_dora: size and direction of each matrix learn apart (arXiv 2402.09353).
        init_lora_weights: ``default`` begins at zero; ``pissa`` with the largest singular values of each matrix, which
            is left without them (arXiv 2404.02948).
        loraplus_lr_ratio: how much faster the second matrix learns than the first (arXiv 2402.12354); None is equally.
        quantization_bit: how many bits the frozen matrices keep with the method ``qlora``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: LoraInit = "default"
    loraplus_lr_ratio: float | None = None
    quantization_bit: Literal[4, 8] = 4


class FreezeSettings(BaseModel):
    """Which weights of the model itself are trained when the others are frozen.

    Attributes:
        layers: so many of the last layers; if negative, of the first.
        modules: parts of names inside of these layers, such as ``mlp``; empty for all.
        extra_modules: parts of names outside of them, such as ``embed_tokens``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = 2
    modules: tuple[str, ...] = ()
    extra_modules: tuple[str, ...] = ()


class TrainSettings(BaseModel):
    """One run of the loop.

    Attributes:
        method: what is trained.
        learning_rate: peak learning rate.
        steps: optimizer steps.
        batch_size: examples of an optimizer step; where texts are learned beside answers, its answers.
        texts_per_step: packed texts of an optimizer step beside its answers; 0 for none.
        text_weight: what the mean over a step's texts counts beside the mean over its answers.
        token_budget: most packed tokens of a micro-batch; bounds memory, changes no result.
        share_prefix: compute the common beginning of a micro-batch's examples once.
        optim: which optimizer: one of ``optimizers``, or the name of a plug-in.
        warmup_steps: steps in which the rate rises.
        neftune_noise_alpha: size of the noise on the embeddings of the tokens learned from (arXiv 2310.05914); None
            for none.
        label_smoothing_factor: share of each target given to all tokens of the vocabulary alike.
        eval_every: steps between two measurements.
        patience: measurements without improvement before stopping early; None never stops early.
        stop_loss: stop when the mean training loss of an epoch falls below it; None never does.
        checkpoint_every: steps between two checkpoints.
        new_token_ids: rows of the embedding, and of a head of its own, that learn beside an adapter; with ``freeze``
            both learn whole.
        preference: how judged answers are learned; None where there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float
    steps: int
    batch_size: int
    method: Method = "lora"
    lora: LoraSettings = LoraSettings()
    freeze: FreezeSettings = FreezeSettings()
    token_budget: int = 4096
    share_prefix: bool = True
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    optim: str = "adamw"
    scheduler: Scheduler = "linear"
    neftune_noise_alpha: float | None = None
    label_smoothing_factor: float = 0.0
    warmup_steps: int = 0
    dtype: Dtype = "float32"
    seed: int = 42
    eval_every: int = 10
    patience: int | None = None
    stop_loss: float | None = None
    checkpoint_every: int = 50
    new_token_ids: tuple[int, ...] = ()
    preference: PreferenceSettings | None = None
    texts_per_step: int = 0
    text_weight: float = 1.0
