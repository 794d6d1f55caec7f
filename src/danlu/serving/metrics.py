"""Prometheus metrics: counted from the accounts of requests, and read from the engines when they are asked for.

Names follow Prometheus' conventions (base units, ``_total``). Labels are names of this server only, never what a caller
sent, so that nobody can fill the memory with them. Not for HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from danlu.serving.accounting import AnswerRecord
from danlu.serving.registry import GatewayRegistry

_STATES: Final = ("stopped", "loading", "ready", "restarting", "failed")
# From the first token of a warm small model to the reading of a long prompt on a processor; seconds.
_FIRST: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_WHOLE: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 1800)
_RATE: Final = (1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 400, 800)


class Metrics:
    """The metrics of one server.

    Args:
        registry: its engines.
    """

    def __init__(self, registry: GatewayRegistry) -> None:
        made = self._collectors = CollectorRegistry()
        model = ["model"]
        self._requests = Counter(
            "danlu_requests", "Requests by how they ended.", ["model", "route", "outcome"], registry=made
        )
        self._errors = Counter(
            "danlu_errors", "Failed and refused requests by error.", ["model", "error"], registry=made
        )
        self._tokens = Counter(
            "danlu_tokens", "Tokens read, written, and found in the cache.", ["model", "kind"], registry=made
        )
        self._first = Histogram(
            "danlu_time_to_first_token_seconds",
            "From the slot to the first token.",
            model,
            buckets=_FIRST,
            registry=made,
        )
        self._queued = Histogram(
            "danlu_queue_seconds", "From the arrival to the slot.", model, buckets=_FIRST, registry=made
        )
        self._seconds = Histogram(
            "danlu_request_seconds", "From the arrival to the end.", model, buckets=_WHOLE, registry=made
        )
        self._rate = Histogram(
            "danlu_tokens_per_second",
            "Tokens a second after the first.",
            model,
            buckets=_RATE,
            registry=made,
        )
        self._http = Counter("danlu_http_requests", "Answers over HTTP.", ["method", "status"], registry=made)
        made.register(_Engines(registry))

    def enter(self, record: AnswerRecord) -> None:
        """Count a request that is over."""
        model = record.origin.name or record.model_id
        self._requests.labels(model, record.origin.route or "other", record.outcome).inc()
        if record.error is not None:
            self._errors.labels(model, record.error).inc()
        for kind, count in (
            ("prompt", record.prompt_tokens),
            ("completion", record.completion_tokens),
            ("cached", record.cached_tokens),
        ):
            self._tokens.labels(model, kind).inc(count)
        self._seconds.labels(model).observe(record.seconds)
        if record.queued_seconds is not None:
            self._queued.labels(model).observe(record.queued_seconds)
        if record.queued_seconds is None or record.first_token_seconds is None:
            return
        self._first.labels(model).observe(record.first_token_seconds)
        span = record.seconds - record.queued_seconds - record.first_token_seconds
        if record.completion_tokens > 1 and span > 0:
            self._rate.labels(model).observe((record.completion_tokens - 1) / span)

    def answered(self, method: str, status: str) -> None:
        """Count an answer over HTTP; ``status`` is its number, or a word where there was none."""
        known = method if method in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} else "other"
        self._http.labels(known, status).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._collectors)


class _Engines:
    """Reads the engines' state at the moment of asking."""

    def __init__(self, registry: GatewayRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Return gauges, one value for each served name."""
        running = _gauge("danlu_running", "Answers being generated.")
        waiting = _gauge("danlu_waiting", "Callers that wait for a slot.")
        slots = _gauge("danlu_slots", "Answers that can be generated at the same time.")
        places = _gauge("danlu_queue_places", "Callers that may wait.")
        restarts = _gauge("danlu_engine_restarts", "Restarts of the engine since it was started.")
        state = _gauge("danlu_engine_state", "1 for the state that the engine is in.", "state")
        for name in self._registry.names():
            health = self._registry.get(name).gateway.health()
            running.add_metric([name], health.running)
            waiting.add_metric([name], health.waiting)
            slots.add_metric([name], health.capacity)
            places.add_metric([name], health.queue)
            restarts.add_metric([name], health.engine.restarts)
            for one in _STATES:
                state.add_metric([name, one], float(one == health.engine.state))
        yield from (running, waiting, slots, places, restarts, state)


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=["model", *labels])
