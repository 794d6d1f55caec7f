from __future__ import annotations

from tests.serving.conftest import tiny_folder, tiny_gguf
from tests.store.conftest import postgres_server

__all__ = ["postgres_server", "tiny_folder", "tiny_gguf"]
