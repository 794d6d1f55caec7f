"""Engines that generate text, their supervision, admission, and the OpenAI wire format."""
