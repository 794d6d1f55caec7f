"""Words that a vocabulary gains: the tokenizer with them, and the rows that stand for them in a model.

A new word is an ordinary token, not a special one: special tokens vanish from the text that people are shown, as the
marks of ChatML shall. Each row
begins as the mean of the rows of the pieces the word was split into before, so that the model begins near the meaning
it already has (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"). Not for training them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from danlu.errors import RecipeError
from danlu.models.base_template import IM_END, IM_START
from danlu.models.checks import TRAINED_WEIGHTS
from danlu.models.load import TOKENIZER_FILES
from danlu.models.safetensors_stream import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EMBEDDING: Final = "model.embed_tokens.weight"
_MARKS: Final = frozenset({IM_START, IM_END})
_ADAPTER_CONFIG: Final = "adapter_config.json"


def write_tokenizer(base: Path, tokens: Sequence[str], folder: Path) -> None:
    """Write the tokenizer of a model with new tokens into a new folder, with all that lies with it.

    Args:
        base: the model's folder.
        tokens: the new tokens, in the order of their ids.
        folder: it is made.

    Raises:
        RecipeError: a token is empty, stands twice, or is one already.
    """
    from tokenizers import AddedToken, Tokenizer

    raw = Tokenizer.from_file(str(base / "tokenizer.json"))
    known = raw.get_vocab(with_added_tokens=True)
    for at, token in enumerate(tokens):
        if not token.strip():
            raise RecipeError("models.token_empty", "new_tokens", number=at + 1)
        if token != token.strip():
            raise RecipeError("models.token_spaces", "new_tokens", token=token)
        if token in tokens[:at]:
            raise RecipeError("models.token_twice", "new_tokens", token=token)
        if token in known or len(raw.encode(token, add_special_tokens=False).ids) == 1:
            raise RecipeError("models.token_known", "new_tokens", token=token)
    raw.add_tokens([AddedToken(token, special=token in _MARKS, normalized=False) for token in tokens])
    folder.mkdir(parents=True)
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    raw.save(str(folder / "tokenizer.json"))


def pieces_of(base: Path, tokenizer: Path, tokens: Sequence[str]) -> dict[int, list[int]]:
    """Return the id of each new token with the ids of the pieces it was before.

    Args:
        base: folder of the base model.
        tokenizer: folder that ``write_tokenizer`` wrote.
        tokens: the new tokens.
    """
    from tokenizers import Tokenizer

    if not tokens:
        return {}
    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (base, tokenizer))
    ids: dict[int, list[int]] = {}
    for token in tokens:
        index = new.token_to_id(token)
        assert index is not None, "write_tokenizer has added it"
        ids[index] = old.encode(token, add_special_tokens=False).ids
    return ids


def begin_as_means(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Give a model rows for new tokens, each the mean of its pieces: in the embedding, and in a head of its own.

    Args:
        model: the base model; it is changed.
        pieces: ids of the pieces by the id of the new token.
    """
    import torch

    if not pieces:
        return
    grow(model, max(pieces) + 1)
    weights = {
        id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    with torch.no_grad():
        for weight in weights.values():
            for index, parts in pieces.items():
                weight[index] = weight[list(parts)].float().mean(dim=0).to(weight.dtype)


def grow(model: PreTrainedModel, rows: int) -> None:
    """Give embedding and head at least so many rows; new ones are zero until something is put there."""
    import torch

    have = model.get_input_embeddings().weight.shape[0]
    if rows > have:
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
                layer.weight[have:] = 0


def grow_for(model: PreTrainedModel, trained: Path) -> None:
    """Give a base model the rows that what was trained on it has.

    Args:
        model: the base model; it is changed.
        trained: folder of an adapter or of trained weights, whose rows are put there afterwards.
    """
    if (trained / TRAINED_WEIGHTS).is_file():
        spec = read_header(trained / TRAINED_WEIGHTS).get(EMBEDDING)
        rows = 0 if spec is None else spec.shape[0]
    else:
        config = json.loads((trained / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
        rows = max((max(ids, default=-1) for ids in token_rows(config).values()), default=-1) + 1
    grow(model, rows)


def token_rows(adapter_config: Mapping[str, object]) -> dict[str, list[int]]:
    """Return the rows that an adapter trains by the name of the layer, in peft's order: its first is the first row."""
    found = adapter_config.get("trainable_token_indices")
    if not found:
        return {}
    return {"embed_tokens": list(found)} if isinstance(found, list) else {k: list(v) for k, v in dict(found).items()}  # type: ignore[call-overload]
