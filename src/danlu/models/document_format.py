"""From a plain text to token ids: what stands before a document, and which token ends it. Imports no torch.

The counterpart of ``chat_format`` for texts that are no conversations. Not for cutting and packing (``data.texts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from danlu.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What ends a document in the pretraining of the families that are trained here: Qwen and SmolLM, Llama 3, the
# DeepSeek distils, Mistral and Llama 2, Gemma.
_END_OF_TEXT: Final = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>")


@dataclass(frozen=True)
class DocumentFormat:
    """A tokenizer, and the ids between which it writes a document.

    Attributes:
        tokenizer: a transformers tokenizer.
        start: ids before the first token of a document, never learned: what the tokenizer itself writes there (a
            beginning-of-text token, for example), else ``end``. Without anything before it the first token could not
            be predicted. In the pretraining of models without a beginning-of-text token a document follows the end of
            another; evaluation programs measure perplexity in the same way.
        end: the id that ends a document, learned.
    """

    tokenizer: PreTrainedTokenizerBase
    start: tuple[int, ...]
    end: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> DocumentFormat:
        """Find out how a tokenizer writes documents.

        Raises:
            ModelError: it has no token that ends a text.
        """
        end = _end_of_text(tokenizer)
        return cls(tokenizer, _written_before(tokenizer) or (end,), end)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, each with the id that ends it and nothing before it."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return [[*ids, self.end] for ids in encoded]


def _end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ended documents when the model was pretrained.

    The ``eos_token`` of a chat model is often the end of a turn (``<|im_end|>``, ``<|eot_id|>``). A page of a book is
    no turn, and the token that ended pages is still in the vocabulary; ``eos_token`` is taken where none is known.
    """
    known = tokenizer.added_tokens_decoder.items()
    added: dict[str, int] = {token.content: index for index, token in known if token.special}
    for name in (tokenizer.eos_token, *_END_OF_TEXT):
        if name in added and name in _END_OF_TEXT:
            return added[name]
    if tokenizer.eos_token_id is None:
        raise ModelError("chat_format.no_end_of_text")
    eos: int = tokenizer.eos_token_id
    return eos


def _written_before(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the special ids that the tokenizer puts before a text by itself."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    places = range(len(whole) - len(plain) + 1)
    return tuple(whole[: next((at for at in places if whole[at : at + len(plain)] == plain), 0)])
