"""The figures of an event, under the names that transformers gives them, and settings as texts; nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from danlu.events import Eval, Event, Finished, Sample, Step


def figures_of(event: Event) -> tuple[int, dict[str, float]] | None:
    """Return the step of an event and its figures by name; None for an event without any."""
    match event:
        case Step():
            figures = {
                "train/loss": event.loss,
                "train/learning_rate": event.learning_rate,
                "train/grad_norm": event.grad_norm,
                "train/epoch": event.epoch,
                "train/tokens_per_second": event.tokens / max(event.seconds, 1e-9),
            }
            judged = {"train/rewards/accuracies": event.preferred, "train/rewards/margins": event.margin}
            return event.step, figures | {name: value for name, value in judged.items() if value is not None}
        case Eval():
            measured = {"eval/loss": event.heldout_loss}
            return event.step, measured | (
                {} if event.preferred is None else {"eval/rewards/accuracies": event.preferred}
            )
        case Sample():
            asked = [answer.passed for answer in event.answers if answer.passed is not None]
            return (event.step, {"eval/probes_passed": sum(asked) / len(asked)}) if asked else None
        case Finished():
            figures = {"final/train_loss": event.train_loss, "final/seconds": event.seconds}
            if event.heldout_loss is not None:
                figures["final/heldout_loss"] = event.heldout_loss
            return event.step, {**figures, "final/peak_rss_bytes": float(event.peak_rss_bytes)}
        case _:
            return None


def flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return grouped settings under dotted names, as texts; what is not set is left out."""
    texts: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            texts |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            texts[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return texts
