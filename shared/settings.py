"""Settings that both services read, each from the environment and validated at start."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.subjects import Subjects


class LogSettings(BaseSettings):
    """Where the log is and how its stream is made.

    Attributes:
        nats_url: one server or several, separated by commas.
        stream: the stream's name.
        subject_root: the first token of every subject.
        log_replicas: copies of the stream in a cluster; 1 for a single server.
        log_duplicate_window_s: how long the server remembers event ids.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_", extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "VELRO"
    subject_root: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "velro"
    log_replicas: PositiveInt = 1
    log_duplicate_window_s: NonNegativeFloat = 120.0

    @property
    def subjects(self) -> Subjects:
        """The subjects of the log."""
        return Subjects(self.subject_root)
