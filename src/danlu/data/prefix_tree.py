"""Which tokens examples begin with alike: a tree in which they stand once.

Built by adding one example after the other, so that how many tokens an example would add is known before it is added.
Not for how the tree is attended (``layout``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from danlu.data.layout import Layout, Segment

# Two examples share what they begin with from so many tokens on. A segment more costs attention calls in every layer,
# about as much time as a dozen tokens in a model of 135 M parameters.
_WORTH: Final = 16

Ids = tuple[int, ...]


@dataclass(eq=False)
class _Node:
    """A stretch of tokens and what may come after it.

    Attributes:
        ids: the tokens.
        below: what comes after it, by first token; several where too little is alike to be shared.
        fixed: it is shared whatever its length.
        ends: examples that end with it, by number.
    """

    ids: Ids
    below: defaultdict[int, list[_Node]] = field(default_factory=lambda: defaultdict(list))
    fixed: bool = False
    ends: list[int] = field(default_factory=list)

    def children(self) -> Iterator[_Node]:
        for alike in self.below.values():
            yield from alike


class PrefixTree:
    """Examples as a tree.

    Attributes:
        tokens: tokens in it.
    """

    def __init__(self, common: Sequence[int] = (), *, share: bool = True) -> None:
        """Begin a tree.

        Args:
            common: what every example begins with; stands once however short it is.
            share: False lays every example beside the others as it is.
        """
        self._share = share
        self._top = _Node(())
        self._count = 0
        self.tokens = 0
        if common and share:
            self._top.below[common[0]].append(_Node(tuple(common), fixed=True))
            self.tokens = len(common)

    def cost(self, ids: Ids) -> int:
        """Return how many tokens an example would add."""
        _, at, child, shared = self._find(ids)
        return len(ids) - at - (shared if child is not None else 0)

    def add(self, ids: Ids) -> None:
        """Add an example; examples are numbered in the order they come."""
        node, at, child, shared = self._find(ids)
        self.tokens += len(ids) - at - (shared if child is not None else 0)
        if child is not None:
            lower = _Node(child.ids[shared:], child.below, child.fixed, child.ends)
            upper = _Node(child.ids[:shared], fixed=child.fixed)
            upper.below[lower.ids[0]].append(lower)
            siblings = node.below[child.ids[0]]
            siblings[siblings.index(child)] = upper
            node, at = upper, at + shared
        if at < len(ids):
            leaf = _Node(ids[at:])
            node.below[ids[at]].append(leaf)
            node = leaf
        node.ends.append(self._count)
        self._count += 1

    def layout(self) -> tuple[Layout, Ids, list[list[tuple[int, int]]]]:
        """Lay the tree out.

        Returns:
            The layout; the ids of its T tokens; of each example the stretches it is made of, as (start, stop) in them.
        """
        segments: list[Segment] = []
        ids: list[int] = []
        stretches: list[list[tuple[int, int]]] = [[] for _ in range(self._count)]
        pending: list[tuple[_Node, int, tuple[tuple[int, int], ...]]] = []
        pending += [(child, -1, ()) for child in self._top.children()][::-1]
        while pending:
            node, parent, above = pending.pop()
            own, below = list(node.ids), list(node.children())
            while len(below) == 1 and not node.ends:  # nothing branches off here
                node = below[0]
                own += node.ids
                below = list(node.children())
            path = (*above, (len(ids), len(ids) + len(own)))
            for number in node.ends:
                stretches[number] = list(path)
            number = len(segments)
            segments.append(Segment(parent, len(own)))
            ids += own
            pending += [(child, number, path) for child in reversed(below)]
        return Layout(tuple(segments)), tuple(ids), stretches

    def clusters(self) -> list[list[int]]:
        """Return which examples have more in common with each other than all have, each list by number."""
        found: list[list[int]] = []
        for child in self._top.children():
            branches = [child] if not child.fixed else list(child.children())
            found += [_examples_in(branch) for branch in branches]
            if child.fixed:
                found += [[number] for number in child.ends]
        return found

    def _find(self, ids: Ids) -> tuple[_Node, int, _Node | None, int]:
        """Return the deepest node an example goes through whole and how many of its ids that takes.

        And, where it goes on along a child for a while that is worth to be shared, that child and for how long.
        """
        node, at = self._top, 0
        while self._share and at < len(ids):
            candidates = node.below.get(ids[at], ())
            best, shared = None, 0
            for child in candidates:
                alike = _alike(child.ids, ids, at)
                if alike > shared:
                    best, shared = child, alike
            if best is None or (shared < _WORTH and not best.fixed):
                break
            if shared < len(best.ids):
                return node, at, best, shared
            node, at = best, at + shared
        return node, at, None, 0


def common_prefix(examples: Sequence[Sequence[int]]) -> int:
    """Return how many leading ids all sequences share."""
    if not examples:
        return 0
    shortest, longest = min(map(tuple, examples)), max(map(tuple, examples))
    limit = min(len(shortest), len(longest))
    return next((i for i in range(limit) if shortest[i] != longest[i]), limit)


def worth_sharing(tokens: int, examples: int) -> bool:
    """Say whether it is worth while that so many examples have so many first tokens only once."""
    return tokens * (examples - 1) >= _WORTH


def _alike(left: Ids, right: Ids, at: int) -> int:
    """Return how many ids of ``left`` are those of ``right`` from ``at`` on."""
    limit = min(len(left), len(right) - at)
    if left[:limit] == right[at : at + limit]:
        return limit
    return next(i for i in range(limit) if left[i] != right[at + i])


def _examples_in(node: _Node) -> list[int]:
    found, pending = [], [node]
    while pending:
        inner = pending.pop()
        found += inner.ends
        pending += inner.children()
    return sorted(found)
