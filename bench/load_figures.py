"""Arithmetic of the load measurements: arrivals, percentiles, slopes, verdicts and their table. No input or output."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured value beside its limit.

    Attributes:
        scenario: the measurement it belongs to.
        name: what was measured.
        value: the figure; None when nothing could be measured, which is short of any limit.
        unit: of value and limit.
        limit: the highest good value, or the lowest when ``at_least``; None for a figure without a limit.
        at_least: the limit is a lower bound.
    """

    scenario: str
    name: str
    value: float | None
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> Literal["ok", "SHORT", ""]:
        """Return ``ok`` or ``SHORT``; nothing for a figure without a limit."""
        if self.limit is None:
            return ""
        if self.value is None or math.isnan(self.value):
            return "SHORT"
        good = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "ok" if good else "SHORT"


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Return the moments, in seconds from the start, at which ``count`` callers come as a Poisson process.

    Args:
        rate: callers a second.
        count: number of callers.
        seed: equal seeds give equal moments.

    Raises:
        ValueError: the rate is not positive.
    """
    if rate <= 0:
        raise ValueError("the rate must be above 0")
    source, moment, moments = random.Random(seed), 0.0, []
    for _ in range(count):
        moment += source.expovariate(rate)
        moments.append(moment)
    return moments


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed (nearest rank); None for none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(times: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the slope of the least-squares line, in units of values a unit of times; None below two moments."""
    if len(set(times)) < 2:
        return None
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - mean_time) ** 2 for time in times)
    together = sum((t - mean_time) * (v - mean_value) for t, v in zip(times, values, strict=True))
    return together / spread


def inversions(order: Sequence[int]) -> int:
    """Return how many pairs were served against their order of arrival; 0 is perfectly fair."""
    return sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))


def table(figures: Sequence[Figure]) -> str:
    """Return the summary: a line a figure, with its limit and its verdict."""
    lines = [f"{'scenario':10}{'figure':58}{'value':>12}  {'limit':>12}"]
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.2f}".removesuffix(".00")
        limit = "" if figure.limit is None else f"{'>=' if figure.at_least else '<='} {figure.limit:g}"
        name = f"{figure.name} ({figure.unit})" if figure.unit else figure.name
        lines.append(f"{figure.scenario:10}{name:58}{value:>12}  {limit:>12}  {figure.verdict}".rstrip())
    return "\n".join(lines)
