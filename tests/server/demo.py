"""A server with a scripted engine on a fixed port, for work on the web page without a model.

Usage: python tests/server/demo.py [PORT] [HOME] [SECONDS_A_PIECE]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from danlu.logs import set_up_logging
from danlu.server.run import serve
from tests.chat.engines import Script
from tests.server.running import scripted

ANSWER = """I am **Danlu**, a scripted answer. 你好!

| a | b |
|---|---|
| 1 | 2 |

```python
print("hello")
```

And a formula: $e^{i\\pi} + 1 = 0$.
"""


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    home = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="danlu-demo-"))
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.05
    set_up_logging("info", None)
    pieces = ["<think>", "Let me ", "think", ".", "</think>", *(ANSWER[i : i + 3] for i in range(0, len(ANSWER), 3))]
    script = Script(pieces=pieces, pause=pause)
    asyncio.run(serve(scripted(home, script, slots=1), "127.0.0.1", port, lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
