"""Every version of every event ever written is read for good, by us and by others.

A golden file is one event as bytes of the log. They are added, never changed: a failing test
here means that events in somebody's log cannot be read any more.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

# jsonschema has no types of its own; what the tests use of it is called in one place below.
from jsonschema import Draft202012Validator  # pyright: ignore[reportMissingTypeStubs]
from pydantic import BaseModel

from shared.contracts.codec import Codec, encode
from shared.contracts.envelope import CONTENT_TYPE, ENVELOPES, Context, Envelope, seal
from shared.contracts.events import EVENT_TYPES, AnyEvent
from shared.contracts.facts import Output, OutputFailure, StoredObject
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    RenewedLink,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.schemas import FOLDER as SCHEMAS
from shared.contracts.schemas import schemas
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[2] / "shared" / "contracts" / "golden"

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
DIES_AT = datetime(2026, 5, 4, 4, 2, 1, tzinfo=UTC)
STORED = StoredObject(
    bucket="media",
    key="user-1/g-1/0-0123456789abcdef.mp4",
    size_bytes=1_234_567,
    sha256="0123456789abcdef" * 4,
    media_type="video/mp4",
    width=1920,
    height=1080,
    duration_s=4.5,
)

# Every field is filled, so that none can be forgotten by a later version's reader.
EVENTS: tuple[AnyEvent, ...] = (
    GenerationRequested(
        user_id="user-1",
        provider="fal",
        model="fal-ai/flux/dev",
        input={"prompt": "Ein Leuchtturm im Sturm", "seed": 7, "mask": None, "sizes": [1.5, None]},
        idempotency_key="order-17",
        metadata={"project": "coast", "parent": None},
    ),
    SubmissionStarted(attempt=4, claim="9b1c6f0e6f1d4e0c8d5a0b7e3f2a1c4d", not_taken=2),
    GenerationSubmitted(
        attempt=1,
        request_id="764cabcf-b745-4b3e-ae38-1200304cf45b",
        status_url="https://queue.fal.run/fal-ai/flux/requests/764cabcf/status",
        response_url="https://queue.fal.run/fal-ai/flux/requests/764cabcf",
        cancel_url="https://queue.fal.run/fal-ai/flux/requests/764cabcf/cancel",
    ),
    GenerationCompleted(
        user_id="user-1",
        provider="fal",
        model="fal-ai/flux/dev",
        request_id="764cabcf-b745-4b3e-ae38-1200304cf45b",
        outputs=(
            Output(
                index=0,
                source_url="https://v3.fal.media/files/a/b.mp4",
                expires_at=DIES_AT,
                media_type="video/mp4",
                width=1920,
                height=1080,
                stored=STORED,
            ),
        ),
    ),
    StorageFailed(
        failures=(
            OutputFailure(index=0, reason=ReasonCode.BUCKET_UNAVAILABLE, detail="503 from S3"),
        )
    ),
    GenerationFailed(
        code="provider_unreachable", detail="no answer", retryable=True, billed=True, given_up=True
    ),
    GenerationCancelled(reason="the user closed the tab"),
    LinksRenewed(
        request=1,
        links=(
            RenewedLink(
                index=0, source_url="https://v3.fal.media/files/c/d.mp4", expires_at=DIES_AT
            ),
        ),
    ),
    LinksNotRenewed(request=2, detail="fal has forgotten the request (404)"),
    SourcesDeleted(detail="all outputs are stored"),
    MediaStored(index=0, attempt=2, object=STORED, took_s=1.25, again=2),
    MigrationAttemptFailed(
        index=0,
        attempt=1,
        reason=ReasonCode.SOURCE_UNAVAILABLE,
        detail="connection reset",
        retry_at=DIES_AT,
    ),
    MigrationCompleted(file_count=1, total_size_bytes=1_234_567),
    MediaLost(
        index=0,
        attempt=12,
        reason=ReasonCode.MEDIA_TYPE_REFUSED,
        detail="the bytes are an HTML page",
        media_type="text/html",
        link=1,
        loss=2,
    ),
    ObjectLost(
        index=0,
        object_key=STORED.key,
        loss=1,
        reason=ReasonCode.SOURCE_EXPIRED,
        detail="it is not in the bucket, and its link answers 404",
    ),
    QuarantineReleased(index=0, attempt=12),
    QuarantineRejected(index=0, attempt=12, detail="a page that asks for a password"),
    RefetchRequested(request=1, indexes=(0,), answer_by=DIES_AT),
)
FIRST_LOSS = MediaLost(
    index=0, attempt=9, reason=ReasonCode.SOURCE_EXPIRED, detail="404 since 04:02"
)
FIRST_STARTED = SubmissionStarted(attempt=1, claim="9b1c6f0e6f1d4e0c8d5a0b7e3f2a1c4d")
FAILED = GenerationFailed(code="content_policy", detail="refused", retryable=False, billed=True)
FIRST_STORED = MediaStored(index=0, attempt=2, object=STORED, took_s=1.25)

# A type that has grown has one golden file more: `<type>+<what came>.json`.
NAMED: dict[str, AnyEvent] = {event.type: event for event in EVENTS} | {
    "velro.generation.submission_started.v1": FIRST_STARTED,
    "velro.generation.submission_started.v1+not_taken": next(
        e for e in EVENTS if isinstance(e, SubmissionStarted)
    ),
    "velro.generation.failed.v1": FAILED,
    "velro.generation.failed.v1+given_up": next(
        e for e in EVENTS if isinstance(e, GenerationFailed)
    ),
    "velro.storage.media_lost.v1": FIRST_LOSS,
    "velro.storage.media_stored.v1": FIRST_STORED,
    "velro.storage.media_stored.v1+again": next(e for e in EVENTS if isinstance(e, MediaStored)),
    "velro.storage.media_lost.v1+loss": next(e for e in EVENTS if isinstance(e, MediaLost)),
}


def sealed(event: AnyEvent) -> Envelope:
    context = Context(
        source="velro/generation",
        correlation_id="req-1",
        causation_id="g-1:velro.generation.requested.v1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return seal(event, generation_id="g-1", at=AT, context=context)


by_type = pytest.mark.parametrize(
    "event", EVENTS, ids=[event.type.removeprefix("velro.") for event in EVENTS]
)
by_name = pytest.mark.parametrize("name", NAMED)
golden_files = pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("*.json")), ids=lambda path: cast("Path", path).stem
)


def test_every_type_has_a_golden_event() -> None:
    assert [type(event) for event in EVENTS] == list(EVENT_TYPES)
    assert {f"{name}.json" for name in NAMED} == {p.name for p in GOLDEN.iterdir()}


@by_name
def test_an_event_is_written_as_its_golden_file_says(name: str) -> None:
    assert encode(sealed(NAMED[name])) == (GOLDEN / f"{name}.json").read_bytes()


@by_name
def test_a_golden_file_is_read_as_the_event_it_was(name: str) -> None:
    assert Codec().decode((GOLDEN / f"{name}.json").read_bytes()) == sealed(NAMED[name])


@by_type
def test_a_golden_event_has_every_field_filled(event: AnyEvent) -> None:
    assert list(empty_fields(sealed(event))) == []


@golden_files
def test_every_golden_file_is_of_a_type_that_can_be_read(path: Path) -> None:
    assert type(Codec().decode(path.read_bytes()).data) in EVENT_TYPES


@golden_files
def test_an_independent_parser_reads_every_golden_file(path: Path) -> None:
    data = path.read_bytes()
    ours = Codec().decode(data)
    theirs = JSONFormat().read(CloudEvent, data)
    assert JSONFormat().get_content_type() == CONTENT_TYPE
    assert (theirs.get_id(), theirs.get_source(), theirs.get_type(), theirs.get_time()) == (
        ours.id,
        ours.source,
        ours.type,
        ours.time,
    )
    assert (theirs.get_subject(), theirs.get_specversion()) == (ours.subject, "1.0")
    assert theirs.get_extension("correlationid") == ours.correlationid
    assert theirs.get_extension("causationid") == ours.causationid
    assert theirs.get_extension("traceparent") == ours.traceparent
    assert theirs.get_data() == json.loads(data)["data"]


@golden_files
def test_every_golden_file_fits_its_schema(path: Path) -> None:
    schema = SCHEMAS / f"{path.stem.partition('+')[0]}.json"
    assert problems(schema, json.loads(path.read_bytes())) == []


@by_type
def test_a_schema_refuses_a_field_that_is_missing_and_one_that_is_unknown(event: AnyEvent) -> None:
    golden = json.loads((GOLDEN / f"{event.type}.json").read_bytes())
    schema = SCHEMAS / f"{event.type}.json"
    assert problems(schema, golden | {"data": {**golden["data"], "surprise": 1}})
    assert problems(schema, {name: part for name, part in golden.items() if name != "source"})


def test_the_checked_in_schemas_are_current() -> None:
    """If this fails: make schemas, and look at what the change does to events already written."""
    assert {path.name: path.read_text() for path in SCHEMAS.iterdir()} == schemas()


def test_a_type_and_its_envelope_go_by_the_same_name() -> None:
    for event_type, envelope in ENVELOPES.items():
        assert envelope.model_fields["type"].default == event_type.type
        assert event_type.type.startswith(f"velro.{event_type.family}.")


def empty_fields(model: BaseModel, path: str = "") -> Iterator[str]:
    for name in type(model).model_fields:
        value: object = getattr(model, name)
        match value:
            case None | () | "":
                yield f"{path}{name}"
            case BaseModel():
                yield from empty_fields(value, f"{path}{name}.")
            case tuple():
                for item in cast("tuple[object, ...]", value):
                    if isinstance(item, BaseModel):
                        yield from empty_fields(item, f"{path}{name}[].")
            case _:
                pass


def problems(schema: Path, body: Any) -> list[str]:  # noqa: ANN401 - any JSON
    validator: Any = Draft202012Validator(json.loads(schema.read_text()))
    return [str(error.message) for error in validator.iter_errors(body)]
