"""Where Danlu keeps things and how it is set up: environment variables ``DANLU_*`` and the folder ``DANLU_HOME``.

Not for what a person wants trained (``recipe``) nor for settings of an assistant (the database).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from danlu.errors import MachineError

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Settings of one process, read from the environment once at its start.

    Attributes:
        home: the folder that holds everything.
        database_url: another database than the built-in one.
        log_level: what is printed.
        slots: answers that an engine generates at the same time; each takes memory for a context of its own.
        queue: callers that may wait for a slot; those beyond are turned away at once.
        log_prompts: write questions and answers of the API into its log, too.
        require_key: refuse callers without an API key also while no key has been made.
        api_key: one key beside those that were made; may call everything, without bounds.
    """

    model_config = SettingsConfigDict(env_prefix="DANLU_", extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".danlu")
    database_url: str | None = None
    log_level: LogLevel = "info"
    log_prompts: bool = False
    slots: int = Field(4, ge=1, le=64)
    queue: int = Field(16, ge=0, le=10_000)
    require_key: bool = False
    api_key: str | None = Field(None, min_length=8)


@dataclass(frozen=True)
class Home:
    """The folder that holds everything Danlu keeps."""

    root: Path

    @property
    def models(self) -> Path:
        """Base models, one folder each."""
        return self.root / "models"

    @property
    def datasets(self) -> Path:
        """Data sets: ``NAME/VERSION/``."""
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        """Runs, one folder each."""
        return self.root / "runs"

    @property
    def versions(self) -> Path:
        """Registered model versions and their exports."""
        return self.root / "versions"

    @property
    def database(self) -> Path:
        """The built-in SQLite database."""
        return self.root / "danlu.db"

    @property
    def logs(self) -> Path:
        """Rotating log files."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """Things that can be made again: measurements, tokenised data, partial downloads."""
        return self.root / "cache"

    def make(self) -> Home:
        """Create the folders that are missing.

        Raises:
            MachineError: the folder cannot be created or written.
        """
        try:
            for folder in (self.models, self.datasets, self.runs, self.versions, self.logs, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(
                "ground.home_not_writable", str(self.root), reason=error.strerror or str(error)
            ) from error
        return self
