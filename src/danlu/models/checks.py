"""Checks that every model folder passes before it is used: configuration, weights, tokenizer.

Nothing here runs code from the folder or opens a pickle. Weights are judged by their headers; the tokenizer is judged
by what it does to a corpus. Not for the quality of answers (``danlu.evaluation``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from danlu.errors import ModelError
from danlu.models.architecture import Architecture, read_architecture
from danlu.models.corpus import CORPUS
from danlu.models.load import first_line, load_tokenizer, quiet_transformers
from danlu.models.safetensors_stream import TensorSpec, read_header

PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
# What a run of the methods full or freeze has changed in its base.
TRAINED_WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True)
class FolderReport:
    """What the checks found.

    Attributes:
        architecture: the model's shape.
        weight_files: names of the safetensors files, in order.
        weight_bytes: their size.
        generic_tokenizer: whether the model-specific tokenizer class of transformers disagrees with
            ``tokenizer.json``, so that only the generic class may be used.
    """

    architecture: Architecture
    weight_files: tuple[str, ...]
    weight_bytes: int
    generic_tokenizer: bool


def check_folder(folder: Path) -> FolderReport:
    """Run every check on a model folder.

    Raises:
        ModelError: the first thing that is wrong, with the remedy.
    """
    if not folder.is_dir():
        raise ModelError("models.folder_missing", str(folder))
    check_no_pickle(folder)
    architecture = check_config(folder)
    files, tensors = read_weights(folder)
    _check_shapes(folder, architecture, tensors)
    generic = check_tokenizer(folder, architecture.vocab_size)
    size = sum((folder / name).stat().st_size for name in files)
    return FolderReport(architecture, files, size, generic)


def check_config(folder: Path) -> Architecture:
    """Check that the configuration names a supported architecture (see ``read_architecture``)."""
    return read_architecture(folder)


def check_no_pickle(folder: Path) -> None:
    """Refuse a folder whose weights are pickles, because opening one can run anything.

    Pickles beside safetensors are tolerated: they are never opened and never copied.

    Raises:
        ModelError: there are pickles and no safetensors.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        raise ModelError("models.pickle", str(folder / pickles[0]))


def read_weights(folder: Path) -> tuple[tuple[str, ...], dict[str, TensorSpec]]:
    """Read the headers of all weights of a folder.

    Returns:
        The file names in order, and every tensor by name.

    Raises:
        ModelError: no weights, a shard is missing, or a header is damaged.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        if not (folder / WEIGHTS_FILE).is_file():
            raise ModelError("models.weights_missing", str(folder))
        return (WEIGHTS_FILE,), dict(read_header(folder / WEIGHTS_FILE))
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = tuple(sorted(set(weight_map.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("models.safetensors_damaged", str(index), reason=first_line(error)) from error
    tensors: dict[str, TensorSpec] = {}
    for name in names:
        # A name with a folder in it could point outside of the model.
        if PurePath(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise ModelError("models.shard_missing", str(folder), name=name)
        tensors.update(read_header(folder / name))
    if set(tensors) != set(weight_map):
        odd = sorted(set(tensors) ^ set(weight_map))[0]
        raise ModelError("models.safetensors_damaged", str(index), reason=odd)
    return names, tensors


def check_tokenizer(folder: Path, vocab_size: int) -> bool:
    """Check that the tokenizer loses nothing and that transformers gives the ids of ``tokenizer.json``.

    Args:
        folder: the model folder.
        vocab_size: rows of the embedding; an id beyond it would crash the model.

    Returns:
        Whether the model-specific class of transformers gives other ids, so that only the generic class may be used.

    Raises:
        ModelError: no tokenizer, a text that does not survive, or ids that disagree with both classes.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError("models.tokenizer_missing", str(folder))
    from tokenizers import Tokenizer

    try:  # the library raises plain Exception for everything
        raw = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelError("models.tokenizer_damaged", str(path), reason=first_line(error)) from error
    expected = [list(raw.encode(text, add_special_tokens=False).ids) for text in CORPUS]
    for text, ids in zip(CORPUS, expected, strict=True):
        if raw.decode(ids, skip_special_tokens=False) != text:
            raise ModelError("models.tokenizer_loses_text", str(path), text=_excerpt(text))
        if max(ids) >= vocab_size:
            raise ModelError("models.tokenizer_too_large", str(path), id=max(ids), rows=vocab_size)
    generic = load_tokenizer(folder)
    for text, ids in zip(CORPUS, expected, strict=True):
        if generic.encode(text, add_special_tokens=False) != ids:
            raise ModelError("models.tokenizer_disagrees", str(folder), text=_excerpt(text))
    return not _own_class_agrees(folder, expected)


def _own_class_agrees(folder: Path, expected: list[list[int]]) -> bool:
    """Whether the class that transformers would choose gives the same ids."""
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, ImportError, KeyError, AttributeError, TypeError):
        return False
    ids = [list(tokenizer.encode(text, add_special_tokens=False)) for text in CORPUS]
    return ids == expected


def _check_shapes(folder: Path, shape: Architecture, tensors: dict[str, TensorSpec]) -> None:
    """Check the embedding and the first and last block against the configuration."""
    prefix = next(
        (name.removesuffix("embed_tokens.weight") for name in tensors if name.endswith("embed_tokens.weight")), None
    )
    if prefix is None:
        raise ModelError("models.tensor_missing", str(folder), name="model.embed_tokens.weight")
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    expected = {f"{prefix}embed_tokens.weight": (shape.vocab_size, shape.hidden_size)}
    for layer in range(shape.layers):
        block = f"{prefix}layers.{layer}"
        expected[f"{block}.self_attn.q_proj.weight"] = (q, shape.hidden_size)
        expected[f"{block}.self_attn.v_proj.weight"] = (kv, shape.hidden_size)
        expected[f"{block}.mlp.down_proj.weight"] = (shape.hidden_size, shape.intermediate_size)
    for name, dims in expected.items():
        spec = tensors.get(name)
        if spec is None:
            raise ModelError("models.tensor_missing", str(folder), name=name)
        if spec.shape != dims:
            raise ModelError("models.tensor_shape", str(folder), name=name, found=spec.shape, expected=dims)


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
