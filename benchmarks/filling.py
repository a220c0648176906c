"""A log filled as a busy installation fills it: events of many generations, one after the other."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from uuid import uuid4

from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE, UnknownEvent
from shared.contracts.subjects import Subjects
from shared.event_log.port import MAX_BATCH_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats.aio.client import Client

    from shared.contracts.envelope import Envelope


async def fill(nats: Client, envelopes: Iterable[Envelope]) -> int:
    """Append in atomic batches, in the given order, which an import would not keep; how many."""
    subjects, source, count = Subjects(), iter(envelopes), 0
    while batch := list(islice(source, MAX_BATCH_EVENTS)):
        batch_id = uuid4().hex
        for place, envelope in enumerate(batch, 1):
            assert not isinstance(envelope.data, UnknownEvent)
            subject = subjects.of(envelope.data.family, envelope.subject)
            headers = {
                "content-type": CONTENT_TYPE,
                "Nats-Msg-Id": envelope.id,
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(place),
            }
            if place < len(batch):
                await nats.publish(subject, encode(envelope), headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                await nats.request(subject, encode(envelope), timeout=30, headers=headers)
        count += len(batch)
    return count
