"""MLflow: the server that ``MLFLOW_TRACKING_URI`` names, else a SQLite store of all runs in the home folder.

MLflow's own reports about its use are off unless ``MLFLOW_DISABLE_TELEMETRY`` says otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Four attempts in about a quarter of a minute; MLflow's own eight take four minutes, longer than a run waits for it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from danlu.jobs.trackers.figures import flat
from danlu.jobs.trackers.order import Ending, FollowOrder

_EXPERIMENT: Final = "danlu"
_STATES: Final = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# One request a second at most, of no more figures than MLflow takes at once.
_FLUSH_SECONDS: Final = 1.0
_MOST: Final = 500


def open_tracker(order: FollowOrder, known: str | None) -> MlflowRun:
    """Begin a run, or go on with the one of the id."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = None
    if not uri:
        store = order.home / "mlflow"
        store.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{(store / 'mlflow.db').as_posix()}"
        artifacts = store / "artifacts"
    client = MlflowClient(tracking_uri=uri)
    if known is not None:
        client.update_run(known, status="RUNNING")
        return MlflowRun(client, uri, client.get_run(known))
    run = client.create_run(_experiment(client, artifacts), run_name=os.environ.get("MLFLOW_RUN_NAME", order.run))
    settings = [Param(name, value) for name, value in flat(order.settings).items()]
    client.log_batch(run.info.run_id, params=settings)
    return MlflowRun(client, uri, run)


def _experiment(client: MlflowClient, artifacts: Path | None) -> str:
    """Return the id of the experiment that the environment names, or of Danlu's; made if there is none."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None))


class MlflowRun:
    """A run of MLflow.

    Args:
        client: speaks with the server or the store.
        uri: the server or the store.
        run: as MLflow has it.
    """

    def __init__(self, client: MlflowClient, uri: str, run: Any) -> None:
        self._client = client
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()
        self.id: str = run.info.run_id
        is_server = uri.startswith(("http://", "https://"))
        place = f"/#/experiments/{run.info.experiment_id}/runs/{self.id}" if is_server else ""
        self.where = uri.rstrip("/") + place

    def log(self, step: int, figures: Mapping[str, float], when: datetime) -> None:
        """Tell the figures of a step."""
        at = round(when.timestamp() * 1000)
        self._waiting += [Metric(name, value, at, step) for name, value in figures.items()]
        if len(self._waiting) >= _MOST or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what has been told so far."""
        if self._waiting:
            self._client.log_batch(self.id, metrics=self._waiting)
        self._waiting = []
        self._flushed = time.monotonic()

    def close(self, ending: Ending) -> None:
        """Say how the run ended."""
        self.flush()
        self._client.set_terminated(self.id, status=_STATES[ending])
