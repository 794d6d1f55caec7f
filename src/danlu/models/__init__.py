"""Base models: the catalogue, where they come from, how they load, and the chat format of their tokenizer."""
