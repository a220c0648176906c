"""Bulk import: many aggregates in atomic batches, several batches in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.event_log.addressing import check_addressed
from shared.event_log.jetstream_api import NoAnswer
from shared.event_log.jetstream_publish import AlreadyThere, Outgoing, outgoing
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    NOTHING_YET,
    Added,
    AppendOutcomeUnknown,
    AppendTooLong,
    LogUnavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable

    from shared.contracts.subjects import Subjects
    from shared.event_log.jetstream_direct_get import DirectGet, Held
    from shared.event_log.jetstream_publish import Publisher
    from shared.event_log.port import Addition

_IN_FLIGHT: Final = 4
_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_TRIES: Final = 4
_ENCODED_AT_ONCE: Final = 50


@dataclass(slots=True)
class _Share:
    """One addition and its events, ready to be sent."""

    addition: Addition
    subject: str
    messages: list[Outgoing]


@dataclass(slots=True)
class _Batch:
    """Additions of different aggregates that fit into one atomic batch."""

    shares: list[_Share] = field(default_factory=list["_Share"])
    subjects: set[str] = field(default_factory=set[str])
    events: int = 0
    size_bytes: int = 0

    def takes(self, share: _Share, size_bytes: int) -> bool:
        """Whether the addition fits. Two for one aggregate cannot be checked in one batch."""
        return not self.shares or (
            self.events + len(share.messages) <= MAX_BATCH_EVENTS
            and self.size_bytes + size_bytes <= _MAX_BATCH_BYTES
            and share.subject not in self.subjects
        )

    def add(self, share: _Share, size_bytes: int) -> None:
        self.shares.append(share)
        self.subjects.add(share.subject)
        self.events += len(share.messages)
        self.size_bytes += size_bytes


async def add_all(
    additions: AsyncIterable[Addition], subjects: Subjects, publisher: Publisher, direct: DirectGet
) -> AsyncGenerator[Added, None]:
    """Append to many aggregates; see `EventLog.append_all`."""
    in_flight: deque[tuple[_Batch, asyncio.Task[Added]]] = deque()
    try:
        async for batch in _batches(additions, subjects):
            # Batches in flight overtake each other, which the events of one aggregate must not.
            while len(in_flight) == _IN_FLIGHT or not all(
                batch.subjects.isdisjoint(earlier.subjects) for earlier, _ in in_flight
            ):
                yield await in_flight[0][1]
                in_flight.popleft()
            in_flight.append((batch, asyncio.create_task(_add(batch, publisher, direct))))
            await asyncio.sleep(0)  # it is sent before the next one is encoded
        while in_flight:
            yield await in_flight[0][1]
            in_flight.popleft()
    finally:
        for _, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)


async def _batches(
    additions: AsyncIterable[Addition], subjects: Subjects
) -> AsyncGenerator[_Batch, None]:
    batch = _Batch()
    number = 0
    async for addition in additions:
        number += 1
        if number % _ENCODED_AT_ONCE == 0:
            await asyncio.sleep(0)  # the batch before goes on leaving while this one is encoded
        check_addressed(addition.family, addition.generation_id, addition.events)
        if len(addition.events) > MAX_BATCH_EVENTS:
            raise AppendTooLong(
                f"{len(addition.events)} events of {addition.generation_id} cannot be appended "
                f"at once; at most {MAX_BATCH_EVENTS} can"
            )
        subject = subjects.of(addition.family, addition.generation_id)
        share = _Share(addition, subject, outgoing(subject, addition.events, addition.expected))
        size_bytes = sum(len(message.data) for message in share.messages)
        if not batch.takes(share, size_bytes):
            yield batch
            batch = _Batch()
        batch.add(share, size_bytes)
    if batch.shares:
        yield batch


async def _add(batch: _Batch, publisher: Publisher, direct: DirectGet) -> Added:
    """Write what of a batch is not there yet. Each try after a refusal leaves out what is."""
    shares = batch.shares
    before = 0
    conflicts: list[Addition] = []
    for _ in range(_TRIES):
        messages = [message for share in shares for message in share.messages]
        position = 0
        if messages:
            try:
                position = (await publisher.batch(messages)).position
            except (VersionConflict, AlreadyThere):
                missing, there, others = await _compare(shares, direct)
                shares = missing
                before += sum(len(share.messages) for share in there)
                conflicts += [share.addition for share in others]
                continue
        return Added(len(batch.shares), position, len(messages), before, tuple(conflicts))
    raise AppendOutcomeUnknown(
        f"{shares[0].subject} and {len(shares) - 1} more are refused again and again, "
        "though the log shows nothing against them"
    )


async def _compare(
    shares: list[_Share], direct: DirectGet
) -> tuple[list[_Share], list[_Share], list[_Share]]:
    """Which additions are missing from the log, are in it, or meet other events there."""
    missing: list[_Share] = []
    there: list[_Share] = []
    others: list[_Share] = []
    try:
        last = await direct.last_of_each([share.subject for share in shares])
        for share in shares:
            held = await _ids(share, last.get(share.subject), direct)
            found = sum(message.event_id in held for message in share.messages)
            version = last[share.subject].position if share.subject in last else NOTHING_YET
            if found == len(share.messages):
                there.append(share)
            elif found == 0 and share.addition.expected in (None, version):
                missing.append(share)
            else:
                others.append(share)
    except NoAnswer as error:
        raise LogUnavailable(f"the log could not be compared: {error}") from error
    return missing, there, others


async def _ids(share: _Share, last: Held | None, direct: DirectGet) -> set[str]:
    """The ids of the aggregate's events, as far as they matter."""
    if last is None:
        return set()
    if [message.event_id for message in share.messages] == [last.event_id]:
        return {last.event_id}  # the common case of a repeated import, without a second question
    return {held.event_id for held in await direct.of_subject(share.subject)}
