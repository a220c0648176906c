"""Records of the log, decoded and grouped: what one transaction applies."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from shared.contracts.codec import Codec, Undecodable
from shared.contracts.envelope import Recorded
from shared.contracts.subjects import ForeignSubject, Subjects
from shared.projection.tables import event_fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.event_log.port import RawRecord

# Decoding holds the event loop; other work gets a turn after so many events, about 3 ms.
_EVENTS_A_TURN: Final = 500


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no event of its aggregate, and why."""

    position: int
    event_type: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction applies.

    Attributes:
        histories: by generation, what happened to it, in the log's order.
        fingerprint: of the last event.
    """

    records: Sequence[RawRecord]
    histories: dict[str, list[Recorded | Unreadable]]
    fingerprint: str

    @property
    def last(self) -> int:
        """The position that a read model has reached with this batch."""
        return self.records[-1].position


class Decoding:
    """How records of one log become batches."""

    def __init__(self, subjects: Subjects, codec: Codec | None = None) -> None:
        self._subjects = subjects
        self._codec = codec or Codec()

    async def batch(self, records: Sequence[RawRecord]) -> Batch:
        """Decode and group; what cannot be decoded stays in its place as `Unreadable`."""
        histories: dict[str, list[Recorded | Unreadable]] = {}
        for count, record in enumerate(records, 1):
            event = self._event(record)
            generation_id = (
                self._generation_id(record.subject)
                if isinstance(event, Unreadable)
                else event.envelope.subject
            )
            if (history := histories.get(generation_id)) is None:
                histories[generation_id] = [event]
            else:
                history.append(event)
            if not count % _EVENTS_A_TURN:
                await asyncio.sleep(0)
        return Batch(records, histories, event_fingerprint(records[-1].data))

    def undecoded(self, record: RawRecord, reason: str) -> Batch:
        """A batch of one record that is not even to be decoded, for this reason."""
        event = Unreadable(record.position, None, reason)
        histories: dict[str, list[Recorded | Unreadable]] = {
            self._generation_id(record.subject): [event]
        }
        return Batch([record], histories, event_fingerprint(record.data))

    def _event(self, record: RawRecord) -> Recorded | Unreadable:
        try:
            envelope = self._codec.decode(record.data)
        except Undecodable as error:
            return Unreadable(record.position, _type_of(record.data), str(error))
        if not record.subject.endswith(f".{envelope.subject}"):
            reason = f"an event of generation {envelope.subject} under another subject"
            return Unreadable(record.position, envelope.type, reason)
        return Recorded(record.position, envelope)

    def _generation_id(self, subject: str) -> str:
        try:
            return self._subjects.generation_id(subject)
        except ForeignSubject:
            return subject


def _type_of(data: bytes) -> str | None:
    try:
        body: Any = json.loads(data)
    except ValueError:
        return None
    named = cast("dict[str, object]", body).get("type") if isinstance(body, dict) else None
    return named if isinstance(named, str) else None
