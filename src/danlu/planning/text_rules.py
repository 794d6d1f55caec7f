"""The written rules for plain texts (``objective: pretrain``); where none stands here, ``rules`` holds for both.

They count tokens, not rows: a document may be a sentence or a book.
"""

from __future__ import annotations

from typing import Final

from danlu.hardware import Machine
from danlu.models.architecture import Architecture
from danlu.models.library import ModelFolder
from danlu.planning import rules
from danlu.planning.facts import DataFacts
from danlu.planning.rules import Choice
from danlu.recipe import Method
from danlu.training.settings import ADAPTER_METHODS

FEW_TOKENS: Final = 100_000
"""Below so many tokens, a model takes over style and words of a text rather than what it says."""

_LENGTH: Final = 1024
_SHORTEST: Final = 128
_FEWEST_PIECES: Final = 10
_HELDOUT_TOKENS: Final = 100_000
_MOST_SEQUENCES: Final = 8
_STEPS_OF_A_PASS: Final = 20
_PASSES: Final = ((20_000, 8), (1_000_000, 4), (10_000_000, 2))


def max_length(base: ModelFolder, machine: Machine) -> Choice:
    """1024 tokens, or what fits into memory at once: texts may be cut anywhere, conversations may not.

    1024 because that is what is computed at once at best (``rules.token_budget``): longer pieces cost memory, and
    attention that grows with the square, for a context that chat questions rarely have.
    """
    fits = rules.fitting_tokens(machine, base) // _SHORTEST * _SHORTEST
    length = min(_LENGTH, base.architecture.max_context, max(fits, _SHORTEST))
    return Choice(length, "planning.text_length")


def holdout_share(pieces: int, tokens: int) -> Choice:
    """A tenth of the pieces, of much text 100,000 tokens; nothing of less than ten pieces.

    A mean over 100,000 tokens is certain to about a hundredth of a nat, and every measurement costs time.
    """
    if pieces < _FEWEST_PIECES:
        return Choice(0.0, "planning.text_holdout_few", {"pieces": pieces})
    share = min(0.1, _HELDOUT_TOKENS / tokens)
    return Choice(share, "planning.text_holdout", {"tokens": _HELDOUT_TOKENS})


def batch_size(data: DataFacts) -> Choice:
    """1, 2, 4 or 8 sequences: the most that leaves 20 steps a pass.

    Published recipes for LoRA on texts take 8 (LLaMA-Factory's example) to 16 (Unsloth's notebook) of 2048 tokens; a
    text of a few hundred pages would be over after some dozen of such steps.
    """
    size = _MOST_SEQUENCES
    while size > 1 and data.train < size * _STEPS_OF_A_PASS:
        size //= 2
    return Choice(size, "planning.text_batch", {"sequences": data.train})


def epochs(data: DataFacts) -> Choice:
    """Four passes; more over very little text, which would give too few steps; fewer over much, which takes long.

    Up to four passes a text is worth nearly as much as new text (Muennighoff et al. 2023, "Scaling data-constrained
    language models", arXiv 2305.16264).
    """
    tokens = data.tokens.supervised
    passes = next((passes for limit, passes in _PASSES if tokens < limit), 1)
    return Choice(passes, "planning.text_epochs", {"tokens": tokens})


def learning_rate(model: Architecture, batch: int, method: Method = "lora") -> Choice:
    """The formula of ``rules.learning_rate`` as it is for a long run: never raised because the run is short.

    A run on texts is not to be learned by heart, and what answers questions is to go on answering them. Gives 7e-5 to
    4e-4, where published recipes take 5e-5 (Unsloth) to 1e-4 (LLaMA-Factory) for models of 7 to 8 B.
    """
    choice = rules.learning_rate(model, batch, rules.SHORT_RUN_STEPS, method)
    reason = "planning.text_rate" if method in ADAPTER_METHODS else "planning.text_rate_full"
    return Choice(choice.value, reason, {"family": model.type, "hidden": model.hidden_size})
