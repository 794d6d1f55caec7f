"""What every test needs: one computing thread (the machine may be shared) and English texts unless a test asks."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["DANLU_LANG"] = "en"
