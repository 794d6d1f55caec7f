"""The name of the file in which a run of ``full`` or ``freeze`` keeps the weights that it changed."""

from typing import Final

TRAINED_WEIGHTS: Final = "weights.safetensors"
