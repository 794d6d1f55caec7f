"""A tokenizer as llama.cpp wants it: tokens with types, merges or scores, special ids, and the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from danlu.errors import ExportError
from danlu.export.pre_tokenizers import recognise
from danlu.models.chat_format import ChatFormat

_SPACE: Final = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """Everything of a tokenizer that goes into a GGUF file.

    Attributes:
        model: ``gpt2`` (byte-level BPE) or ``llama`` (SentencePiece BPE with byte fallback).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: the text of each id, padded to the rows of the embedding.
        types: the ``TokenType`` of each id.
        merges: for ``gpt2``, the merges in order, the parts divided by a space.
        scores: for ``llama``, minus the rank of the merge that makes each token.
        special: ids by their name in GGUF: ``bos``, ``eos``, ``eot``, ``pad``, ``unk``.
        add_bos: whether encoding a text puts the first token before it.
        add_eos: whether it puts the last token behind it.
        space_prefix: whether it puts a space before the text (``llama`` only).
        template: the chat template.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    special: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool
    template: str


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read the tokenizer in ``folder`` for a model with ``rows`` rows of embedding.

    Raises:
        ExportError: llama.cpp cannot do what this tokenizer does, or it has more tokens than the model has rows.
        ModelError: the tokenizer is damaged or has no chat template.
    """
    path = folder / "tokenizer.json"
    format_ = ChatFormat.load(folder)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    if model.get("type") != "BPE":
        raise ExportError("export.tokenizer_unknown", str(path), what=str(model.get("type")))
    raw = Tokenizer.from_file(str(path))
    vocab = raw.get_vocab(with_added_tokens=True)
    if max(vocab.values()) >= rows:
        raise ExportError("export.tokenizer_too_large", str(path), id=max(vocab.values()), rows=rows)
    sentencepiece = bool(model.get("byte_fallback"))
    tokens, types = _tokens(content, vocab, rows, sentencepiece=sentencepiece)
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    scores = _scores(tokens, merges) if sentencepiece else ()
    bare, whole = raw.encode("a", add_special_tokens=False).ids, raw.encode("a").ids
    special = _special(format_)
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else recognise(content, str(path)),
        tokens=tokens,
        types=types,
        merges=() if sentencepiece else tuple(" ".join(merge) for merge in merges),
        scores=scores,
        special=special,
        add_bos=len(whole) > len(bare) and whole[0] == special.get("bos") and whole[0] != bare[0],
        add_eos=len(whole) > len(bare) and whole[-1] == special.get("eos") and whole[-1] != bare[-1],
        space_prefix=sentencepiece and raw.encode("a", add_special_tokens=False).tokens[0].startswith(_SPACE),
        template=format_.template.source,
    )


def adds_bos(folder: Path) -> bool:
    """Whether the tokenizer in ``folder`` puts its first token before every text."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return raw.encode("a").ids[0] != raw.encode("a", add_special_tokens=False).ids[0]


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the tokenizer's metadata to a GGUF file."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.space_prefix)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }
    for name, index in vocabulary.special.items():
        adders[name](index)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_chat_template(vocabulary.template)


def _tokens(
    content: Mapping[str, Any], vocab: Mapping[str, int], rows: int, *, sentencepiece: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return text and type of every row of the embedding; rows without a token are marked unused."""
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for token, index in vocab.items():
        tokens[index] = token
        is_byte = sentencepiece and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        types[index] = int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in content.get("added_tokens", ()):
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    return tuple(tokens), tuple(types)


def _scores(tokens: tuple[str, ...], merges: list[tuple[str, ...]]) -> tuple[float, ...]:
    """Return scores under which llama.cpp, which joins the pair with the best score first, follows the merges."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(merges):
        rank.setdefault("".join(merge), index)
    return tuple(-float(rank.get(token, len(merges))) for token in tokens)


def _special(format_: ChatFormat) -> dict[str, int]:
    """Return the special ids; the end of a turn is ``eos``, a second one that the settings name is ``eot``."""
    tokenizer = format_.tokenizer
    ids: dict[str, int | None] = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
    }
    others = sorted(format_.stop_ids - {tokenizer.eos_token_id})
    if ids["eos"] is None:
        ids["eos"] = others.pop(0)
    ids["eot"] = others[0] if others else None
    return {name: index for name, index in ids.items() if index is not None}
