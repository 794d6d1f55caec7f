"""Turns a run into weights that an engine loads (merged, GGUF, adapter) and checks that they agree."""
