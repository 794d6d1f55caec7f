"""How the examples of one micro-batch lie in one long sequence.

Examples are laid end to end without padding. What several of them begin with (a system prompt, a context, the same
question with several answers) stands there once and is computed once (``prefix_tree`` finds it): a tree of segments,
in which each segment attends to itself and to those it hangs from, never to another example. Exact: keys and values of
a shared segment are the ones that each of its examples would have computed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import torch

# Segments whose lengths differ by at most this factor share one attention call, padded to the longest of them.
# Padding costs attention only (a few per cent of a step); a call costs about 0.3 ms on a CPU, forward and backward.
_GROUP_STRETCH: Final = 1.25


@dataclass(frozen=True)
class Segment:
    """Tokens that stand together in every example that has them.

    Attributes:
        parent: number of the segment that they come after, always a smaller one; -1 at the beginning of an example.
        length: number of tokens, at least 1.
    """

    parent: int
    length: int


@dataclass(frozen=True)
class Layout:
    """The segments of one packed sequence of T = sum of their lengths tokens, in the order in which they lie there."""

    segments: tuple[Segment, ...]

    @classmethod
    def flat(cls, lengths: list[int] | tuple[int, ...], prefix: int = 0) -> Layout:
        """Return examples of so many own tokens each behind a common prefix, or beside each other without one."""
        first = (Segment(-1, prefix),) if prefix else ()
        return cls((*first, *(Segment(0 if prefix else -1, length) for length in lengths)))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each segment begins in the sequence."""
        return tuple(accumulate((segment.length for segment in self.segments[:-1]), initial=0))

    @property
    def total(self) -> int:
        """Tokens in the packed sequence."""
        return sum(segment.length for segment in self.segments)

    @cached_property
    def above(self) -> tuple[tuple[int, ...], ...]:
        """The segments that each one hangs from, from the beginning of the example on."""
        found: list[tuple[int, ...]] = []
        for segment in self.segments:
            found.append(() if segment.parent < 0 else (*found[segment.parent], segment.parent))
        return tuple(found)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Tokens of the segment that each token belongs to; int64, shape [1, T]."""
        lengths = torch.tensor([segment.length for segment in self.segments])
        return lengths.repeat_interleave(lengths).unsqueeze(0)

    @cached_property
    def position_ids(self) -> torch.Tensor:
        """Position of each packed token in its own example; int64, shape [1, T]."""
        parts = []
        for segment, above in zip(self.segments, self.above, strict=True):
            first = sum(self.segments[number].length for number in above)
            parts.append(torch.arange(first, first + segment.length))
        return torch.cat(parts).unsqueeze(0)

    @cached_property
    def groups(self) -> tuple[SegmentGroup, ...]:
        """Segments of like length that hang from the same one, to be attended in one call."""
        siblings: defaultdict[int, list[int]] = defaultdict(list)
        for number, segment in enumerate(self.segments):
            siblings[segment.parent].append(number)
        groups: list[list[int]] = []
        for members in siblings.values():
            opened = len(groups)
            for number in sorted(members, key=lambda i: self.segments[i].length):
                length = self.segments[number].length
                if len(groups) > opened and length <= self.segments[groups[-1][0]].length * _GROUP_STRETCH:
                    groups[-1].append(number)
                else:
                    groups.append([number])
        return tuple(self._group(group) for group in groups)

    @cached_property
    def query_slots(self) -> torch.Tensor | None:
        """Packed position of every slot of a query, group after group; int64, shape [sum of N*S].

        None when that is the packed sequence itself.
        """
        return self._unless_in_order(torch.cat([group.index.flatten() for group in self.groups]))

    @cached_property
    def key_slots(self) -> torch.Tensor | None:
        """The same of keys and values: of each group what it hangs from and then its own; shape [sum of P + N*S]."""
        return self._unless_in_order(
            torch.cat([part for group in self.groups for part in (group.path, group.index.flatten())])
        )

    @cached_property
    def back(self) -> torch.Tensor | None:
        """The query slot of every packed token, int64, shape [T]; None when they are in the same order."""
        if self.query_slots is None:
            return None
        back = torch.empty(self.total, dtype=torch.int64)
        real = torch.cat([group.real for group in self.groups])
        back[self.query_slots[real]] = real.nonzero()[:, 0]
        return back

    def _group(self, members: list[int]) -> SegmentGroup:
        above = [
            torch.arange(self.starts[number], self.starts[number] + self.segments[number].length)
            for number in self.above[members[0]]
        ]
        return SegmentGroup(
            starts=tuple(self.starts[number] for number in members),
            lengths=tuple(self.segments[number].length for number in members),
            path=torch.cat(above) if above else torch.empty(0, dtype=torch.int64),
        )

    def _unless_in_order(self, slots: torch.Tensor) -> torch.Tensor | None:
        in_order = len(slots) == self.total and bool((slots == torch.arange(self.total)).all())
        return None if in_order else slots


@dataclass(frozen=True)
class SegmentGroup:
    """N segments of like length behind the same P tokens, padded to the longest of them: S slots each.

    Attributes:
        starts: where they begin in the packed sequence.
        lengths: how long they are.
        path: packed positions of what they hang from, int64, shape [P].
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    path: torch.Tensor

    @property
    def count(self) -> int:
        """The number N of segments."""
        return len(self.starts)

    @property
    def slots(self) -> int:
        """The number S of slots of a segment."""
        return max(self.lengths)

    @property
    def before(self) -> int:
        """The number P of tokens that they hang from."""
        return len(self.path)

    @cached_property
    def index(self) -> torch.Tensor:
        """Packed position of each slot, padding repeats the segment's last token; int64, shape [N, S]."""
        steps = torch.arange(self.slots).unsqueeze(0)
        lengths = torch.tensor(self.lengths).unsqueeze(1)
        return torch.tensor(self.starts).unsqueeze(1) + torch.minimum(steps, lengths - 1)

    @cached_property
    def real(self) -> torch.Tensor:
        """Which slots are no padding; bool, shape [N*S]."""
        return (torch.arange(self.slots).unsqueeze(0) < torch.tensor(self.lengths).unsqueeze(1)).flatten()

    def mask(self, window: int | None = None) -> torch.Tensor | None:
        """True where slot q may attend to a token of the path or to slot k; bool, shape [S, P + S].

        Causality alone keeps padding out: padding stands after every real slot of its segment.

        Args:
            window: how many tokens a token sees, itself included; None is all before it.

        Returns:
            None where being causal is all that is asked.
        """
        if window is not None and window >= self.before + self.slots:
            window = None
        if window is None and not self.before:
            return None
        if window not in self._masks:
            seen = torch.ones(self.slots, self.before + self.slots, dtype=torch.bool).tril(self.before)
            self._masks[window] = seen if window is None else seen.triu(self.before - window + 1)
        return self._masks[window]

    @cached_property
    def _masks(self) -> dict[int | None, torch.Tensor]:
        """The masks made so far, by window: every layer asks for them."""
        return {}
