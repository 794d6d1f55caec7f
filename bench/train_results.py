"""What each side of ``train_vs_peers`` leaves behind, read into one shape; medians, ratios and the table of them.

Pure: reads files and computes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from danlu.events import Finished, LoggedEvent, Step, read_events

DANLU = "danlu"


@dataclass(frozen=True)
class Loop:
    """The training loop of one run.

    Attributes:
        steps: optimizer steps.
        seconds: from the beginning of the first step to the end of the last, everything between included.
        train_loss: mean over the steps of the step's mean loss, in nats a learned token.
        own_rate: examples a second as the program itself reports them.
        losses: each step's mean loss.
    """

    steps: int
    seconds: float
    train_loss: float
    own_rate: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Work:
    """What a run has to compute, whoever runs it.

    Attributes:
        tokens: real tokens, padding and what is computed again not counted.
        gflop: arithmetic that they need: forward and back to the inputs through every matrix, through the vocabulary
            head for learned tokens only; the adapter, attention and the rest are left out.
        machine_gflops: measured matrix speed of the machine in its faster number format, GFLOP/s.
    """

    tokens: int
    gflop: float
    machine_gflops: float


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        name: ``danlu``, or the peer's name.
        number: which of the repeated runs, from 1.
        examples: examples seen in all.
        work: what they are to compute.
        loop: the training loop.
        wall_seconds: from the start of the process to its end.
        peak_rss_bytes: of its process tree.
        load_before: the machine's load average of the last minute when it began.
    """

    name: str
    number: int
    examples: int
    work: Work
    loop: Loop
    wall_seconds: float
    peak_rss_bytes: int
    load_before: float

    @property
    def examples_per_second(self) -> float:
        """Examples over the loop's time."""
        return self.examples / self.loop.seconds

    @property
    def tokens_per_second(self) -> float:
        """Real tokens over the loop's time."""
        return self.work.tokens / self.loop.seconds

    @property
    def matrix_share(self) -> float:
        """Needed arithmetic a second, as a share of the machine's matrix speed."""
        return self.work.gflop / self.loop.seconds / self.work.machine_gflops

    def record(self) -> dict[str, Any]:
        """Return the run as a line of the result file."""
        return {"kind": "run", **asdict(self), "examples_per_second": self.examples_per_second}


@dataclass(frozen=True)
class Medians:
    """Medians over the runs of one side."""

    runs: int
    examples_per_second: float
    tokens_per_second: float
    matrix_share: float
    wall_seconds: float
    peak_rss_bytes: float
    train_loss: float


@dataclass(frozen=True)
class Comparison:
    """Danlu against one peer.

    Attributes:
        speed: Danlu's examples a second over the peer's (more is better).
        wall: the peer's wall time over Danlu's (more is better).
        memory: Danlu's peak memory over the peer's (less is better).
        loss_percent: by how much Danlu's mean loss is higher than the peer's, in per cent of the peer's. Means
            something where both took the same examples in each step: a mean of means depends on the grouping.
    """

    speed: float
    wall: float
    memory: float
    loss_percent: float


def read_danlu(report: str, home: Path) -> Loop:
    """Read what ``danlu train --json`` printed, and the run's events.

    The loop's time is taken from the events, not from the report: the report counts the steps alone, a peer's time
    has also what lies between them.

    Raises:
        ValueError: the run did not finish.
    """
    values: dict[str, Any] = json.loads(report)
    if values["status"] != "finished":
        raise ValueError(f"Danlu's run is {values['status']}")
    events = read_events(home / "runs" / values["run"] / "events.jsonl")
    return Loop(
        int(values["steps"]),
        span(events),
        float(values["train_loss"]),
        float(values["examples_per_second"]),
        tuple(item.event.loss for item in events if isinstance(item.event, Step)),
    )


def span(events: Sequence[LoggedEvent]) -> float:
    """Return the seconds from the beginning of the first step to the end of the last.

    Raises:
        ValueError: no step, or no end.
    """
    steps = [(item.time, item.event) for item in events if isinstance(item.event, Step)]
    if not steps or not any(isinstance(item.event, Finished) for item in events):
        raise ValueError("the event log has no finished training")
    begun, ended = (datetime.fromisoformat(time) for time in (steps[0][0], steps[-1][0]))
    return (ended - begun).total_seconds() + steps[0][1].seconds


def read_peer(output: Path) -> Loop:
    """Read ``train_results.json`` and ``trainer_log.jsonl``, which LLaMA-Factory leaves in its output folder.

    Raises:
        ValueError: the log has no step.
    """
    values: dict[str, Any] = json.loads((output / "train_results.json").read_text(encoding="utf-8"))
    lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines if line]
    losses = {int(line["current_steps"]): float(line["loss"]) for line in logged if line.get("loss") is not None}
    if not losses:
        raise ValueError(f"{output} has no step")
    return Loop(
        max(losses),
        float(values["train_runtime"]),
        float(values["train_loss"]),
        float(values["train_samples_per_second"]),
        tuple(losses.values()),
    )


def medians(runs: Sequence[Run]) -> Medians:
    """Return the medians of one side's runs."""
    return Medians(
        runs=len(runs),
        examples_per_second=statistics.median(run.examples_per_second for run in runs),
        tokens_per_second=statistics.median(run.tokens_per_second for run in runs),
        matrix_share=statistics.median(run.matrix_share for run in runs),
        wall_seconds=statistics.median(run.wall_seconds for run in runs),
        peak_rss_bytes=statistics.median(run.peak_rss_bytes for run in runs),
        train_loss=statistics.median(run.loop.train_loss for run in runs),
    )


def by_name(runs: Sequence[Run]) -> dict[str, Medians]:
    """Return each side's medians, in the order in which the sides first ran."""
    names = dict.fromkeys(run.name for run in runs)
    return {name: medians([run for run in runs if run.name == name]) for name in names}


def compare(danlu: Medians, peer: Medians) -> Comparison:
    """Return Danlu's medians against a peer's."""
    return Comparison(
        speed=danlu.examples_per_second / peer.examples_per_second,
        wall=peer.wall_seconds / danlu.wall_seconds,
        memory=danlu.peak_rss_bytes / peer.peak_rss_bytes,
        loss_percent=100 * (danlu.train_loss / peer.train_loss - 1),
    )


def table(sides: dict[str, Medians]) -> str:
    """Return medians and ratios as text."""
    lines = [
        f"{'':16}{'runs':>5}{'examples/s':>12}{'tokens/s':>10}{'of matrix speed':>17}"
        f"{'wall':>10}{'peak memory':>13}{'mean loss':>11}"
    ]
    lines += [
        f"{name:16}{row.runs:>5}{row.examples_per_second:>12.3f}{row.tokens_per_second:>10.0f}"
        f"{row.matrix_share:>17.0%}{row.wall_seconds:>8.1f} s"
        f"{row.peak_rss_bytes / 1e9:>10.2f} GB{row.train_loss:>11.4f}"
        for name, row in sides.items()
    ]
    for name, row in sides.items():
        if name != DANLU and DANLU in sides:
            it = compare(sides[DANLU], row)
            lines.append(
                f"danlu / {name}: {it.speed:.2f}× the examples/s, done {it.wall:.2f}× as soon, "
                f"{it.memory:.0%} of the peak memory, mean loss {it.loss_percent:+.2f} %"
            )
    return "\n".join(lines)
