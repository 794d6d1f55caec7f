"""Danlu (丹炉): from a file of question-and-answer examples to a private chat assistant on your own machine."""

from importlib.metadata import version

__version__ = version("danlu")
