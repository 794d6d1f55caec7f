"""LLaMA-Factory's training YAML, read as a recipe: ``keys`` is the table, ``translate`` applies it."""

from danlu.llamafactory.keys import DIFFERENT, KEYS, Becomes, NotBuilt, NotNeeded
from danlu.llamafactory.translate import field_of, is_llamafactory, translate
from danlu.llamafactory.translation import Translated, Translation

__all__ = [
    "DIFFERENT", "KEYS", "Becomes", "NotBuilt", "NotNeeded", "Translated", "Translation", "field_of",
    "is_llamafactory", "translate",
]  # fmt: skip
