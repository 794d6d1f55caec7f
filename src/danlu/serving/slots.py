"""Which of an engine's slots a request gets, so that each conversation finds its own beginning in the cache.

llama.cpp's own choice goes by the share of the prompt that a slot already holds. Behind one long system prompt every
conversation looks like every other, so all of them take the same slot and overwrite each other there (measured: of a
first turn of 338 tokens only the 264 of the system prompt were found again). Not for how many may run (``admission``).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A template may end a prompt otherwise than it writes the same turn later: R1's ``<think>`` and a line break.
_TAIL: Final = 4


@dataclass
class _Slot:
    ids: tuple[int, ...] = ()
    running: int = 0
    used: int = 0


class SlotBook:
    """The slots of one engine process, and the last prompt that each has read.

    Args:
        number: how many there are.
    """

    def __init__(self, number: int) -> None:
        self._slots = [_Slot() for _ in range(number)]
        self._clock = itertools.count(1)

    def take(self, ids: Sequence[int]) -> int:
        """Return the slot for a prompt: the one whose conversation it continues, else the one not used for longest.

        Args:
            ids: token ids of the prompt, shape [T].
        """
        free = [place for place, slot in enumerate(self._slots) if not slot.running]
        places = free or list(range(len(self._slots)))
        continued = [place for place in places if self._continues(ids, self._slots[place].ids)]
        place = (
            max(continued, key=lambda one: len(self._slots[one].ids))
            if continued
            else min(places, key=lambda one: self._slots[one].used)
        )
        slot = self._slots[place]
        slot.ids, slot.used = tuple(ids), next(self._clock)
        slot.running += 1
        return place

    def give_back(self, place: int) -> None:
        """Note that a request on a slot is over."""
        self._slots[place].running -= 1

    @staticmethod
    def _continues(ids: Sequence[int], before: tuple[int, ...]) -> bool:
        sure = len(before) - _TAIL
        return 0 < sure <= len(ids) and tuple(ids[:sure]) == before[:sure]
