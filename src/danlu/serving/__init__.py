"""Engines that generate text, their supervision, admission, and the OpenAI wire format.

Way of one answer: ``api`` (wire request) → ``registry`` (which model) → ``gateway`` (prompt ids, admission, timeouts,
think blocks, stop strings) → an ``Engine`` (``supervisor`` over a child process, or ``openai_engine`` over a URL).
Nothing here imports torch except the child process ``transformers_child``.
"""
