"""Hands out the adapter alone, in peft's own format, with the tokenizer. Not for the model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from danlu.export.merge import WrittenFile, copy_tokenizer
from danlu.export.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config
from danlu.files import disk_errors, sha256_of


def write_adapter(adapter: Path, tokenizer: Path, folder: Path) -> WrittenFile:
    """Copy an adapter into an existing, empty folder.

    Args:
        adapter: folder of the peft adapter.
        tokenizer: folder with the tokenizer and chat template as trained with.
        folder: where to.

    Returns:
        The file of weights.

    Raises:
        ExportError: there is no adapter.
    """
    read_adapter_config(adapter, mergeable=False)
    with disk_errors(folder):
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(adapter / name, folder / name)
        copy_tokenizer(tokenizer, folder)
    weights = folder / ADAPTER_WEIGHTS
    return WrittenFile(ADAPTER_WEIGHTS, weights.stat().st_size, sha256_of(weights))
