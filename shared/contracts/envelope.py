"""CloudEvents 1.0 in structured mode: the JSON body is the whole envelope.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, JsonValue, StringConstraints, create_model

from shared.contracts.events import EVENT_TYPES, AnyEvent
from shared.contracts.facts import Event, Fact, GenerationId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

CONTENT_TYPE = "application/cloudevents+json"

# An id is a header of its message too, and a source is a URI reference: no spaces, no line ends.
OneWord = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")]


class UnknownEvent(Event):
    """An event of a type this version does not know: somebody newer wrote it. Folds pass it by."""

    type: ClassVar[str] = "unknown"

    body: dict[str, JsonValue]


class Envelope(Fact):
    """One event with what tells who said it, when, about which generation and why.

    Attributes:
        id: deterministic: the same fact decided twice has the same id.
        subject: the generation's id.
        correlationid: shared by everything that one request caused.
        causationid: the id of the event that this one answers: the last one that was known when
            it was decided, or the one that asked for it.
        traceparent: W3C trace context of the writer.
    """

    specversion: Literal["1.0"] = "1.0"
    id: OneWord
    source: OneWord
    type: str
    time: AwareDatetime
    subject: GenerationId
    datacontenttype: Literal["application/json"] = "application/json"
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    data: AnyEvent | UnknownEvent


# One closed class a type, so that pydantic picks it by its `type` while it reads the JSON, in
# one pass: 4 us an event where a union tried in turn takes 30.
def _envelope_of(event_type: type[AnyEvent | UnknownEvent], type_name: object) -> type[Envelope]:
    fields: dict[str, Any] = {"type": type_name, "data": (event_type, ...)}
    return create_model(f"{event_type.__name__}Envelope", __base__=Envelope, **fields)


ENVELOPES: dict[type[AnyEvent], type[Envelope]] = {
    event_type: _envelope_of(event_type, (Literal[event_type.type], event_type.type))
    for event_type in EVENT_TYPES
}
UNKNOWN_ENVELOPE = _envelope_of(UnknownEvent, (str, ...))


@dataclass(frozen=True, slots=True)
class Context:
    """Who writes, and in answer to what. Carried from the request or the event being handled."""

    source: str
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


def seal(event: AnyEvent, *, generation_id: str, at: datetime, context: Context) -> Envelope:
    """Put an event into its envelope, under the id that this fact always has."""
    suffix = f":{key}" if (key := event.key()) else ""
    return ENVELOPES[type(event)](
        id=f"{generation_id}:{event.type}{suffix}",
        source=context.source,
        type=event.type,
        time=at,
        subject=generation_id,
        correlationid=context.correlation_id,
        causationid=context.causation_id,
        traceparent=context.traceparent,
        data=event,
    )


def seal_decision(
    events: Iterable[AnyEvent], *, generation_id: str, at: datetime, context: Context
) -> list[Envelope]:
    """Put what was decided at once into envelopes; all but the first answer the one before."""
    sealed: list[Envelope] = []
    for event in events:
        sealed.append(seal(event, generation_id=generation_id, at=at, context=context))
        context = replace(context, causation_id=sealed[-1].id)
    return sealed


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as the log holds it. `position` is its place in the total order, from 1."""

    position: int
    envelope: Envelope
