"""The proof as one self-contained HTML file: no script, no font, nothing loaded from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from danlu.evaluation.result import Proof
from danlu.events import Eval, LoggedEvent, Step
from danlu.files import format_bytes, write_text
from danlu.i18n import Language, language, t

_WIDTH, _HEIGHT = 640, 180


@dataclass(frozen=True)
class Comparison:
    """What a run was predicted to cost, and what it cost."""

    predicted_seconds: float
    seconds: float
    predicted_bytes: int
    peak_bytes: int


def write_report(
    path: Path,
    proof: Proof,
    title: str,
    events: list[LoggedEvent],
    lang: Language | None = None,
    prediction: Comparison | None = None,
) -> None:
    """Write the report of a run.

    Args:
        path: the HTML file.
        proof: what was measured.
        title: name of the run.
        events: the run's events, for the curve.
        lang: language of the page; the one in force when None.
        prediction: what the run was to cost and what it cost.
    """
    chosen = lang or language()
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(files("danlu.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8"))
    steps = [(item.event.step, item.event.loss) for item in events if isinstance(item.event, Step)]
    evals = [(item.event.step, item.event.heldout_loss) for item in events if isinstance(item.event, Eval)]
    page = template.render(
        lang=chosen,
        t=lambda key, **params: t(f"evaluation.{key}", chosen, **params),
        proof=proof,
        title=title,
        verdict=proof.verdict(chosen),
        prediction=prediction,
        format_bytes=format_bytes,
        width=_WIDTH,
        height=_HEIGHT,
        curve=_points(steps, steps + evals),
        heldout_curve=_points(evals, steps + evals),
        top=max((loss for _, loss in steps + evals), default=0.0),
        last_step=max((step for step, _ in steps), default=0),
    )
    write_text(path, page)


def _points(series: list[tuple[int, float]], everything: list[tuple[int, float]]) -> str:
    """Return a series as the points of an SVG polyline, scaled to all that is drawn."""
    if not series:
        return ""
    last = max(step for step, _ in everything) or 1
    top = max(loss for _, loss in everything) or 1.0
    return " ".join(f"{step / last * _WIDTH:.1f},{_HEIGHT - loss / top * _HEIGHT:.1f}" for step, loss in series)
