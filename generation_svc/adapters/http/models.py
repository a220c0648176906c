"""What callers send and get, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from generation_svc.read_model.rows import (
    Status,
    StorageState,
)
from shared.contracts.facts import JsonObject
from shared.contracts.facts import UserId as ContractUserId

FLAGS: Final = frozenset(
    {
        "storage_retry_needed",
        "fal_urls_temporary",
        "requires_background_migration",
        "storage_successful",
        "migration_completed_at",
        "total_migrated_size",
        "migration_file_count",
    }
)

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._:@+-]*"
# A model becomes part of a provider's URL: no segment may be `..` or hold what a URL reads.
Model = Annotated[str, StringConstraints(pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$", max_length=256)]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _names_a_folder(user_id: str) -> str:
    if user_id in {".", ".."}:
        raise ValueError("is a folder of the bucket, and this would be another one")
    return user_id


UserId = Annotated[ContractUserId, AfterValidator(_names_a_folder)]


def _without_flags(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if taken := FLAGS & metadata.keys():
        raise ValueError(f"these names are the service's own: {', '.join(sorted(taken))}")
    return metadata


Metadata = Annotated[JsonObject, AfterValidator(_without_flags)]

_EXAMPLE_ID = "019339a1-6f0e-7c3a-9c56-2f8f0d1b7e11"
_EXAMPLE_MOMENT = "2026-01-05T09:30:00Z"


class GenerationRequest(BaseModel):
    """A generation to run."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "provider": "sandbox",
                    "model": "sandbox/image",
                    "input": {"prompt": "a lighthouse in a storm", "num_images": 2},
                    "metadata": {"album": "lighthouses"},
                }
            ]
        },
    )

    user_id: UserId = Field(description="Who it is for. Part of the key under which it is stored.")
    provider: ProviderName = Field(description="Who is to make it.")
    model: Model = Field(description="The provider's name for what is to make it.")
    input: JsonObject = Field(
        description="What the model is given, as its provider documents it; up to 768 KiB as JSON."
    )
    metadata: Metadata = Field(
        default_factory=dict[str, JsonValue],
        description="The caller's own, given back with the generation; up to 64 KiB as JSON.",
    )


class Links(BaseModel):
    """Paths of this generation."""

    self: str
    watch: str
    events: str
    cancel: str


class AcceptedAnswer(BaseModel):
    """The request is in the log: it will be run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _EXAMPLE_ID,
                    "position": 42,
                    "links": {
                        "self": f"/v1/generations/{_EXAMPLE_ID}?at_least=42",
                        "watch": f"/v1/generations/{_EXAMPLE_ID}/watch?at_least=42",
                        "events": f"/v1/generations/{_EXAMPLE_ID}/events",
                        "cancel": f"/v1/generations/{_EXAMPLE_ID}/cancel",
                    },
                }
            ]
        }
    )

    id: str
    position: int = Field(description="Of its last event in the log, for `at_least`.")
    links: Links


class CancelRequest(BaseModel):
    """Why nobody wants the result any more."""

    model_config = ConfigDict(strict=True, extra="forbid")

    reason: Annotated[str, StringConstraints(max_length=2000)] = ""


class OutputAnswer(BaseModel):
    """One piece of media, by index."""

    index: int
    url: str = Field(description="Where it is now: in the bucket, or at the provider.")
    expires_at: datetime | None = Field(
        description="When this URL dies; null where it does not. `outputs/{index}` never does."
    )
    stored: bool = Field(description="Whether it is in the bucket, verified.")
    lost: bool = Field(description="Whether it can never be stored.")
    media_type: str | None
    width: int | None
    height: int | None
    size_bytes: int | None
    sha256: str | None
    lost_reason: str | None = Field(description="Why it can never be stored.")
    failure_reason: str | None = Field(description="Why the last try to store it failed.")


class ErrorAnswer(BaseModel):
    """Why the provider made nothing, as far as anybody knows."""

    code: str
    detail: str
    retryable: bool = Field(description="Whether a new generation of the same may succeed.")
    billed: bool | None = Field(description="null where the provider does not say.")
    given_up: bool = Field(
        description="Only we stopped waiting: media that comes yet completes the generation."
    )


class GenerationAnswer(BaseModel):
    """One generation as the read model has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _EXAMPLE_ID,
                    "user_id": "ada",
                    "status": "completed",
                    "storage_state": "temporary",
                    "provider": "sandbox",
                    "model": "sandbox/image",
                    "input": {"prompt": "a lighthouse in a storm"},
                    "outputs": [
                        {
                            "index": 0,
                            "url": "https://media.example/1.png",
                            "expires_at": "2026-01-05T10:30:00Z",
                            "stored": False,
                            "lost": False,
                            "media_type": "image/png",
                            "width": 1024,
                            "height": 1024,
                            "size_bytes": None,
                            "sha256": None,
                            "lost_reason": None,
                            "failure_reason": "bucket_unavailable",
                        }
                    ],
                    "output_urls": ["https://media.example/1.png"],
                    "media_url": "https://media.example/1.png",
                    "metadata": {
                        "album": "lighthouses",
                        "storage_retry_needed": True,
                        "fal_urls_temporary": True,
                        "requires_background_migration": True,
                        "storage_successful": False,
                        "migration_completed_at": None,
                        "total_migrated_size": None,
                        "migration_file_count": None,
                    },
                    "error": None,
                    "created_at": _EXAMPLE_MOMENT,
                    "updated_at": _EXAMPLE_MOMENT,
                    "position": 46,
                }
            ]
        }
    )

    id: str
    user_id: str
    status: Status
    storage_state: StorageState
    provider: str
    model: str
    input: dict[str, JsonValue] | None = Field(
        description="null where another service had it made."
    )
    outputs: list[OutputAnswer]
    output_urls: list[str] = Field(
        description="By index; filled for every completed generation, whatever storage does."
    )
    media_url: str | None = Field(description="The first of `output_urls`.")
    metadata: dict[str, Any] = Field(
        description=f"The caller's own, and: {', '.join(sorted(FLAGS))}."
    )
    error: ErrorAnswer | None
    created_at: datetime
    updated_at: datetime
    position: int = Field(description="Of the last event in the log that changed this answer.")


class GenerationPage(BaseModel):
    """Some generations, the newest first."""

    generations: list[GenerationAnswer]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class EventAnswer(BaseModel):
    """One event of the log, with its CloudEvents attributes."""

    position: int
    id: str
    type: str
    source: str
    time: datetime
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None = Field(description="The trace of the request that began it.")
    data: dict[str, JsonValue]


class HistoryAnswer(BaseModel):
    """Everything that happened to one generation, of both services, in the log's order."""

    id: str
    events: list[EventAnswer]


Reason = Literal["finished", "stored", "deadline", "shutting_down", "interrupted"]


class EndOfWatch(BaseModel):
    """Why a watch ends.

    `finished`, `stored`: nothing more will come. `deadline`, `shutting_down`, `interrupted`:
    connect again with `Last-Event-ID`.
    """

    reason: Reason


class PartAnswer(BaseModel):
    """One part of the service."""

    ready: bool
    problem: str | None


class ReadyAnswer(BaseModel):
    """Whether the service does its work, part by part."""

    status: Literal["ok", "failing"]
    parts: dict[str, PartAnswer]


class AliveAnswer(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReceivedAnswer(BaseModel):
    """The callback was believed and what it says is in the log."""

    generation_id: str
    position: int


class ProblemAnswer(BaseModel):
    """RFC 9457 problem details. Some problems say more in members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A path that says what this kind of problem is.")
    title: str
    status: int
    detail: str | None = None


class Invalidity(BaseModel):
    """One thing that is wrong with a request."""

    detail: str
    in_: Literal["body", "query", "path", "header"] = Field(alias="in")
    pointer: str | None = Field(None, description="Into the body: RFC 6901, as a URI fragment.")
    name: str | None = Field(None, description="Of the parameter or header.")


class InvalidAnswer(ProblemAnswer):
    """RFC 9457 problem details of a 422. Which members there are depends on its `type`."""

    errors: list[Invalidity] | None = None
    providers: list[str] | None = None


class ProblemKind(BaseModel):
    """A kind of problem, in words."""

    name: str
    title: str
    status: int
    meaning: str
