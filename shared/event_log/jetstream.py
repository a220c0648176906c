"""The log on NATS JetStream."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from shared.contracts.codec import Codec, Undecodable
from shared.contracts.envelope import Recorded
from shared.event_log.addressing import check_addressed
from shared.event_log.jetstream_api import ApiError, NoAnswer
from shared.event_log.jetstream_direct_get import DirectGet
from shared.event_log.jetstream_import import add_all
from shared.event_log.jetstream_publish import AlreadyThere, Publisher, outgoing
from shared.event_log.jetstream_reader import ReadLimits, read_stream
from shared.event_log.jetstream_stream import stream_state
from shared.event_log.port import (
    NOTHING_YET,
    Appended,
    AppendOutcomeUnknown,
    CorruptRecord,
    ExpectedVersion,
    History,
    LogUnavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from nats.aio.client import Client

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family
    from shared.contracts.subjects import Subjects
    from shared.event_log.jetstream_stream import StreamState
    from shared.event_log.port import Added, Addition, RawRecord, WholeRecord


class JetStreamLog:
    """`EventLog` on one JetStream stream, over one connection. See `ensure_stream` for the stream.

    Attributes:
        timeout_s: the deadline of every single request.
    """

    def __init__(
        self,
        connection: Client,
        subjects: Subjects,
        *,
        stream: str = "VELRO",
        codec: Codec | None = None,
        timeout_s: float = 5.0,
        read_limits: ReadLimits | None = None,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._stream = stream
        self._codec = codec or Codec()
        self._timeout_s = timeout_s
        self._read_limits = read_limits or ReadLimits()
        self._publisher = Publisher(connection, stream, timeout_s=timeout_s)
        self._direct = DirectGet(connection, stream, timeout_s=timeout_s)

    @property
    def problem(self) -> str | None:
        """What keeps it from taking events, as far as the last append tells; None: nothing."""
        return self._publisher.problem

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        """See `EventLog.append`."""
        check_addressed(family, generation_id, events)
        subject = self._subjects.of(family, generation_id)
        messages = outgoing(subject, events, expected)
        try:
            if len(messages) == 1:
                acknowledged = await self._publisher.one(messages[0])
            else:
                acknowledged = await self._publisher.batch(messages)
        except (VersionConflict, AlreadyThere) as error:
            # The server compares versions before it compares ids, so the repeat of an append
            # that got through looks like a conflict: only the log can tell.
            return await self._repeated(subject, [event.id for event in events], error)
        return Appended(acknowledged.position, duplicate=acknowledged.duplicate)

    def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """See `EventLog.append_all`. 4 atomic batches of up to 1,000 events are in flight."""
        return add_all(additions, self._subjects, self._publisher, self._direct)

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        """See `EventLog.load`."""
        subject = self._subjects.of(family, generation_id)
        try:
            held = await self._direct.of_subject(subject)
        except NoAnswer as error:
            raise LogUnavailable(f"{subject} could not be loaded: {error}") from error
        events: list[Recorded] = []
        for event in held:
            if until is not None and event.position > until:
                break
            try:
                events.append(Recorded(event.position, self._codec.decode(event.data)))
            except Undecodable as error:
                raise CorruptRecord(event.position, subject, error) from error
        version = ExpectedVersion(events[-1].position) if events else NOTHING_YET
        return History(tuple(events), version)

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """See `EventLog.read`."""
        return read_stream(
            self._connection, self._stream, after=after, until=until, limits=self._read_limits
        )

    async def read_whole(
        self, *, after: int, until: int
    ) -> AsyncGenerator[Sequence[WholeRecord], None]:
        """As `read` up to `until`, with all that the log keeps of each event.

        Raises:
            The same as `read`.
        """
        source = read_stream(
            self._connection,
            self._stream,
            after=after,
            until=until,
            limits=self._read_limits,
            whole=True,
        )
        async with aclosing(source):
            async for records in source:
                yield cast("Sequence[WholeRecord]", records)

    async def last_position(self) -> int:
        """See `EventLog.last_position`."""
        return (await self._state()).last

    async def first_position(self) -> int:
        """The first position that the stream still has; in an empty one, that of the next event.

        Raises:
            LogUnavailable: no answer.
        """
        return (await self._state()).first

    async def _state(self) -> StreamState:
        try:
            return await stream_state(self._connection, self._stream, timeout_s=self._timeout_s)
        except (NoAnswer, ApiError) as error:
            raise LogUnavailable(f"stream {self._stream}: {error}") from error

    async def _repeated(
        self, subject: str, ids: Sequence[str], refusal: VersionConflict | AlreadyThere
    ) -> Appended:
        try:
            held = {event.event_id: event for event in await self._direct.of_subject(subject)}
        except NoAnswer as error:
            raise LogUnavailable(f"{subject} could not be loaded: {error}") from error
        there = [held[event_id].position for event_id in ids if event_id in held]
        if len(there) == len(ids):
            return Appended(there[-1], duplicate=True)
        if there or isinstance(refusal, VersionConflict):
            raise VersionConflict(f"{subject} has events that were not expected") from refusal
        # The stream knows an id whose event it does not show: a replica lags behind.
        raise AppendOutcomeUnknown(f"{subject}: the log knows these events, and shows none yet")
