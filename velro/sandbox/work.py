"""One request as the sandbox sees it: what was asked, how far it is, what it came to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from velro.sandbox.faults import INFRASTRUCTURE_STATUSES, Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velro.sandbox.media import Medium
    from velro.sandbox.pictures import Format

State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]

# fal's names for sizes, in pixels.
_NAMED_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


class Size(BaseModel):
    """A picture's size in pixels."""

    model_config = ConfigDict(frozen=True)

    width: int = Field(ge=16, le=2048)
    height: int = Field(ge=16, le=2048)


class WorkInput(BaseModel):
    """What fal's text-to-image models take, as far as it matters here. More is ignored."""

    model_config = ConfigDict(frozen=True)

    prompt: str = Field(default="", max_length=10_000)
    seed: int | None = None
    num_images: int = Field(default=1, ge=1, le=16)
    image_size: (
        Literal[
            "square_hd",
            "square",
            "portrait_4_3",
            "portrait_16_9",
            "landscape_4_3",
            "landscape_16_9",
        ]
        | Size
    ) = "square"
    output_format: Literal["png", "jpeg", "webp"] = "jpeg"
    sandbox: Faults = Faults()

    def chosen_seed(self) -> int:
        """The seed, or one that follows from the prompt, so that pictures are repeatable."""
        if self.seed is not None:
            return self.seed
        return int.from_bytes(hashlib.sha256(self.prompt.encode()).digest()[:4])

    def pixels(self) -> tuple[int, int]:
        """Width and height."""
        if isinstance(self.image_size, Size):
            return (self.image_size.width, self.image_size.height)
        return _NAMED_SIZES[self.image_size]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the result endpoint answers, and the callback carries."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def error(self) -> str | None:
        """What the status and the callback say of a failure."""
        return None if self.status == 200 else f"Unexpected status code: {self.status}"  # noqa: PLR2004 - HTTP's own number


@dataclass(slots=True, eq=False)
class Work:
    """One request. `origin` names who asked, over repeated submissions."""

    request_id: str
    app: str
    model: str
    input: WorkInput
    faults: Faults
    origin: str
    base_url: str
    webhook_url: str | None
    lifetime_s: float
    state: State = "IN_QUEUE"
    answer: Answer | None = None
    media: tuple[Medium, ...] = ()
    cancelled: bool = False
    drawing: bool = False
    worked_s: float = 0.0
    webhook_tries: int | None = None
    asked_status: int = 0
    accepted_at: float = field(default_factory=time.time)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    called_back: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def picture_format(self) -> Format:
        """Moving pictures for models that are named after video, else what was asked for."""
        return "gif" if self.moving else self.input.output_format

    @property
    def moving(self) -> bool:
        """Whether the model makes moving pictures."""
        return "video" in self.model

    def url(self, rest: str = "") -> str:
        """Where this request is asked about. fal leaves a model's subpath out of it."""
        return f"{self.base_url}/{self.app}/requests/{self.request_id}{rest}"


def success(work: Work) -> Answer:
    """What fal answers for pictures, or for a video; `expires_at` is the sandbox's own addition."""
    width, height = work.input.pixels()
    files = [
        {
            "url": f"{work.base_url}/files/{medium.token}",
            "content_type": medium.media_type,
            "file_name": medium.token,
            "file_size": medium.size_bytes,
            "width": width,
            "height": height,
            "expires_at": medium.expires_at,
        }
        for medium in work.media
    ]
    seed = work.input.chosen_seed()
    if work.moving:
        return Answer(200, {"video": files[0], "seed": seed})
    body = {
        "images": files,
        "timings": {"inference": work.worked_s},
        "seed": seed,
        "has_nsfw_concepts": [False] * len(files),
        "prompt": work.input.prompt,
    }
    return Answer(200, body)


def infrastructure_failure(faults: Faults) -> Answer:
    """Fal's flat shape, https://docs.fal.ai/documentation/model-apis/request-errors."""
    kind = faults.fail_type or "runner_disconnected"
    retryable = True if faults.fail_retryable is None else faults.fail_retryable
    headers = {"X-Fal-Error-Type": kind, "X-Fal-Retryable": str(retryable).lower()}
    body = {"detail": "The runner left before the work was done", "error_type": kind}
    return Answer(INFRASTRUCTURE_STATUSES.get(kind, 500), body, headers)


def model_failure(work: Work) -> Answer:
    """Fal's list shape, https://docs.fal.ai/documentation/model-apis/errors."""
    kind = work.faults.fail_type or "content_policy_violation"
    item = {
        "loc": ["body", "prompt"],
        "msg": "A content checker refused this prompt",
        "type": kind,
        "url": f"https://docs.fal.ai/errors#{kind}",
        "input": work.input.prompt,
    }
    retryable = str(bool(work.faults.fail_retryable)).lower()
    return Answer(422, {"detail": [item]}, {"X-Fal-Retryable": retryable})


def cancelled() -> Answer:
    """What became of work that was cancelled in time."""
    kind = "client_cancelled"
    body = {"detail": "The request was cancelled", "error_type": kind}
    return Answer(499, body, {"X-Fal-Error-Type": kind, "X-Fal-Retryable": "false"})
