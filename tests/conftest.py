"""What every test needs: one computing thread (the machine may be shared) and English texts unless a test asks.

Run by several processes (``pytest -n 2``), the tests of a module stay together, and so do the end-to-end tests with the
real starter model, which share one that is trained; those take longest and begin first.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from danlu import hardware

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["DANLU_LANG"] = "en"

_END_TO_END = "tests/e2e/"
_ALONE = "tests/e2e/test_interruptions.py"
# Long modules, begun early: one that begins last is waited for by a process that has nothing left to do.
_LONG = ("tests/training/test_ranks.py", "tests/cli/test_interruptions.py", "tests/jobs/test_together.py")


@pytest.fixture(scope="session", autouse=True)
def measured_once() -> Iterator[None]:
    """Measure the speed of this machine once, not for a second at each plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "measure_gflops", cache(hardware.measure_gflops))
        yield


@pytest.fixture(scope="module", autouse=True)
def libraries_not_searched() -> None:
    """Keep the collector out of what is there before a module: a third of a second each time a test's training asks."""
    gc.freeze()


class _Modules(LoadScopeScheduling):
    """Gives whole modules to the processes, in the order of collection, and those with the starter to a single one."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "e2e" if _shares_a_model(nodeid) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False
    return _Modules(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: (
            not _shares_a_model(item.nodeid),
            not item.nodeid.startswith(_ALONE),
            not item.nodeid.startswith(_LONG),
        )
    )


def _shares_a_model(nodeid: str) -> bool:
    return nodeid.startswith(_END_TO_END) and not nodeid.startswith(_ALONE)
