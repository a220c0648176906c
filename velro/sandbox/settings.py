"""What a sandbox is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from velro.sandbox.faults import Faults


class SandboxSettings(BaseModel):
    """How a sandbox behaves when a request says nothing else.

    Attributes:
        data: where media lie until their links die.
        key: what clients must send as `Authorization: Key …`.
        user_id: the account that callbacks are signed for.
        concurrency: requests worked on at once; more queue up.
        link_lifetime_s: how long links live where the client prefers nothing.
        dead_link_status: what a link answers after its death.
        max_open_requests: requests queued or worked on; more are answered with 429.
        max_finished_requests: finished requests remembered; the oldest are forgotten.
        max_media_bytes: media kept; the oldest are deleted, dead or not.
        max_input_bytes: the largest body of a submission.
        webhook_attempts: tries to deliver a callback.
        webhook_first_wait_s: the wait after the first failed try; each next is twice as long.
        webhook_longest_wait_s: the longest of these waits.
        webhook_deadline_s: how long one try may take.
        drain_s: how long stopping waits for callbacks under way.
        faults: what every request suffers that does not say otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    key: SecretStr = SecretStr("sandbox-key")
    user_id: str = "sandbox-user"
    concurrency: int = Field(default=8, ge=1)
    link_lifetime_s: float = 7 * 24 * 3600.0
    dead_link_status: Literal[404, 410] = 410
    max_open_requests: int = Field(default=10_000, ge=1)
    max_finished_requests: int = Field(default=10_000, ge=1)
    max_media_bytes: int = Field(default=2 * 1024**3, ge=1)
    max_input_bytes: int = Field(default=4 * 1024**2, ge=1)
    webhook_attempts: int = Field(default=10, ge=1)
    webhook_first_wait_s: float = Field(default=0.5, gt=0)
    webhook_longest_wait_s: float = Field(default=30.0, gt=0)
    webhook_deadline_s: float = Field(default=15.0, gt=0)
    drain_s: float = Field(default=2.0, ge=0)
    faults: Faults = Faults()
