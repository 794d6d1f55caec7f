"""From a micro-batch to its loss: the packed way, and the plain padded way it is checked against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import PeftModel
from torch import nn

from danlu.data.batches import MicroBatch, micro_batches
from danlu.data.examples import Example, unpacked
from danlu.data.table import supervised_of
from danlu.training.attention import ATTENTION_NAME
from danlu.training.lora_linear import fused_forwards
from danlu.training.loss import chunked_cross_entropy, chunked_token_losses
from danlu.training.products import PackedMatrix, in_place, packable
from danlu.training.trained import TrainedModel, base_of

# Architectures whose attention is causal, over all that came before or over a window of it, and whose logits are the
# head's output: the packed path is exact for them (tested for each). Others (state spaces, media) take the plain path.
PACKED_ARCHITECTURES: Final = frozenset({"llama", "qwen2", "qwen3", "mistral", "gemma3_text"})
# What the two ways are compared on: enough tokens for attention in blocks.
_CHECKED: Final = 2
_CHECKED_TOKENS: Final = 320
_CHECKED_LEARNED: Final = 32
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def has_fast_path(config: Any) -> bool:
    """Whether models of a configuration of transformers can be trained packed.

    Caps on scores or logits, attention to what comes later, and dropped scores are computed in the plain way.
    """
    plain_only = (
        "attention_dropout",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "use_bidirectional_attention",
    )
    return config.model_type in PACKED_ARCHITECTURES and not any(getattr(config, name, None) for name in plain_only)


class LossModel:
    """A model that is trained, and the way its loss is computed.

    Attributes:
        model: the model with what is trained in it.
        packed: whether the packed path is used.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        share_prefix: bool = True,
        smoothing: float = 0.0,
        noise: float | None = None,
    ) -> None:
        self.model = model
        self._smoothing = smoothing
        self._noise = noise
        self._base = base_of(model)
        config = self._base.config
        adapters = model.peft_config.values() if isinstance(model, PeftModel) else ()
        dropout = max((config.lora_dropout for config in adapters), default=0.0)
        self.packed = has_fast_path(config)
        # Noise, like what dropout drops, differs from example to example: there is nothing to share.
        self.share_prefix = share_prefix and dropout == 0.0 and not noise
        self._fused = fused_forwards(model)
        self._packs_head = type(self.head) is nn.Linear and packable(self.head.weight)

    @property
    def head(self) -> nn.Linear:
        """The vocabulary head."""
        head: nn.Linear = self._base.get_output_embeddings()
        return head

    @property
    def _packed_head(self) -> PackedMatrix | None:
        return PackedMatrix.of(self.head.weight) if self._packs_head else None

    def loss_sum(self, batch: MicroBatch) -> torch.Tensor:
        """Return the summed loss of a packed micro-batch in nats, float32, scalar, with its graph."""
        hidden = self._predicting(batch)
        return chunked_cross_entropy(hidden, self.head, batch.targets, self._smoothing_now, self._packed_head)

    def plain_loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the same for examples padded to a rectangle, through the model's own attention and full logits."""
        logits, labels = self._plain(examples)
        return nn.functional.cross_entropy(
            logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=-100,
            reduction="sum",
            label_smoothing=self._smoothing_now,
        )

    @property
    def _smoothing_now(self) -> float:
        """Targets are smoothed while learning; what is measured is the loss itself."""
        return self._smoothing if self.model.training else 0.0

    @contextmanager
    def _noisy(self, lengths: torch.Tensor) -> Iterator[None]:
        """Add NEFTune's noise to the embeddings while learning.

        Args:
            lengths: for each token of the sequence the tokens of its example, shape [N, T] or [N, 1].
        """
        if not self._noise or not self.model.training:
            yield
            return
        alpha = self._noise

        def add_noise(_module: nn.Module, _inputs: object, embedded: torch.Tensor) -> torch.Tensor:
            size = alpha / (lengths * embedded.shape[-1]).sqrt()
            return embedded + torch.empty_like(embedded).uniform_(-1, 1) * size.unsqueeze(-1).to(embedded.dtype)

        hook = self._base.get_input_embeddings().register_forward_hook(add_noise)
        try:
            yield
        finally:
            hook.remove()

    def _predicting(self, batch: MicroBatch) -> torch.Tensor:
        """Return the last hidden states of the positions that predict a learned token, shape [S, H]."""
        with self._fast_path(), self._noisy(batch.layout.lengths):
            hidden: torch.Tensor = self._base.model(
                input_ids=batch.input_ids,
                position_ids=batch.layout.position_ids,
                layout=batch.layout,
                use_cache=False,
            ).last_hidden_state[0, batch.rows]
        return hidden

    def _plain(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded logits [N, C, V] and the token that each predicts, -100 where none is learned [N, C].

        C counts the positions at which some example predicts a learned token; the others never reach the vocabulary.
        """
        examples = unpacked(examples)
        longest = max(len(example.input_ids) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            length = len(example.input_ids)
            ids[row, :length] = torch.tensor(example.input_ids)
            mask[row, :length] = 1
            learned = torch.tensor(example.learn)
            labels[row, :length] = torch.where(learned, ids[row, :length], -100)
        targets = labels[:, 1:]
        columns = (targets != -100).any(dim=0).nonzero()[:, 0]
        with self._noisy(mask.sum(dim=1, keepdim=True)):
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns).logits
        return logits, targets[:, columns]

    def step_losses(
        self, examples: Sequence[Example], token_budget: int
    ) -> list[tuple[int, Sequence[Example] | MicroBatch]]:
        """Cut a step into pieces that fit the budget, each with its number of computed tokens."""
        if self.packed:
            pieces = micro_batches(examples, token_budget, share_prefix=self.share_prefix)
            return [(piece.layout.total, piece) for piece in pieces]
        ordered = sorted(unpacked(examples), key=lambda item: len(item.input_ids))
        size = max(1, token_budget // len(ordered[-1].input_ids))
        chunks = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        return [(len(chunk) * len(chunk[-1].input_ids), chunk) for chunk in chunks]

    def piece_loss(self, piece: Sequence[Example] | MicroBatch) -> torch.Tensor:
        """Return the summed loss of one piece of ``step_losses``."""
        return self.loss_sum(piece) if isinstance(piece, MicroBatch) else self.plain_loss_sum(piece)

    def token_losses(self, piece: Sequence[Example] | MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of each learned token of a piece, with its graph, and whose it is; nothing is smoothed.

        Returns:
            Nats, float32 of shape [S], and int64 of shape [S]: which of the piece's examples, in the order they were
            packed or padded in, the token belongs to.
        """
        if isinstance(piece, MicroBatch):
            return chunked_token_losses(
                self._predicting(piece), self.head, piece.targets, self._packed_head
            ), piece.owners
        logits, labels = self._plain(piece)
        learned = labels != -100
        losses = nn.functional.cross_entropy(logits[learned].float(), labels[learned], reduction="none")
        return losses, learned.nonzero()[:, 0]

    def learned_logits(self, piece: Sequence[Example] | MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the learned positions of a piece and the tokens that stand there.

        Returns:
            Float32 of shape [S, V] and int64 of shape [S]; the order of the S positions depends on the piece alone.
        """
        if isinstance(piece, MicroBatch):
            return self.head(self._predicting(piece)).float(), piece.targets
        logits, labels = self._plain(piece)
        learned = labels != -100
        return logits[learned].float(), labels[learned]

    def mean_loss(self, examples: Sequence[Example], token_budget: int) -> float:
        """Return the mean loss over the learned tokens of examples in nats, without a graph."""
        supervised = int(supervised_of(examples).sum())
        self.model.eval()
        with torch.no_grad():
            total = sum(float(self.piece_loss(piece)) for _, piece in self.step_losses(examples, token_budget))
        self.model.train()
        return total / supervised

    def packed_agrees(self, examples: Sequence[Example]) -> bool:
        """Compare the packed path with the plain one on a few examples; use the plain one when they differ.

        Returns:
            False when the packed path was in use and has now been given up.
        """
        if not self.packed:
            return True
        # The plain path holds the logits of all learned positions at once: of whole texts they would be what needs most
        # memory in a run.
        examples = [part.excerpt(_CHECKED_TOKENS, _CHECKED_LEARNED) for part in unpacked(examples)[:_CHECKED]]
        supervised = int(supervised_of(examples).sum())
        self.model.eval()  # dropout would make the two differ by chance
        with torch.no_grad():
            fast = sum(
                float(self.loss_sum(piece))
                for piece in micro_batches(examples, 1 << 30, share_prefix=self.share_prefix)
            )
            plain = sum(float(self.plain_loss_sum([example])) for example in examples)
        self.model.train()
        self.packed = abs(fast - plain) / max(supervised, 1) <= _TOLERANCE.get(self._base.dtype, 3e-2)
        return self.packed

    @contextmanager
    def _fast_path(self) -> Iterator[None]:
        """Put packed attention and fused adapters in the place of the model's own, which everybody else expects."""
        config = self._base.config
        own = config._attn_implementation
        # Not set_attn_implementation: it goes through every module, which for each piece would be felt.
        config._attn_implementation = ATTENTION_NAME
        try:
            with in_place(self._fused):
                yield
        finally:
            config._attn_implementation = own
