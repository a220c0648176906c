"""How events get into the stream: one as a plain publish, several as an atomic batch.

Atomic batches:
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import uuid4

from nats.errors import NoRespondersError

from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE
from shared.event_log.jetstream_api import (
    BATCH_NOT_WHOLE,
    BATCHES_TURNED_OFF,
    DUPLICATE_IN_BATCH,
    DUPLICATE_IN_FLIGHT,
    NOT_SENT,
    OUT_OF_RESOURCES,
    STORE_FAILED,
    TOO_LARGE,
    WRONG_LAST_SEQUENCE,
    WRONG_STREAM,
    ApiError,
    parse_answer,
    request,
)
from shared.event_log.jetstream_wire import frame, write
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    AppendOutcomeUnknown,
    AppendRefused,
    AppendTooLong,
    EventTooLarge,
    LogFull,
    LogMismatch,
    LogUnavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client

    from shared.contracts.envelope import Envelope
    from shared.event_log.port import ExpectedVersion

# The server holds at most 50 open batches a stream and refuses the next, whoever opens it.
_MAX_OPEN_BATCHES: Final = 16
_MAX_PUBLISHES_IN_FLIGHT: Final = 1024
# All headers of an event but its id, at their longest.
_HEADER_BYTES: Final = 512
# What went unanswered so long ago says nothing of now: nothing may have been appended since.
_NEWS_S: Final = 30.0


class AlreadyThere(Exception):
    """A batch holds an id that the stream knows; nothing of the batch was written."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event ready to be sent.

    Attributes:
        expected: the last position of its subject, checked by the server; None: not checked.
    """

    subject: str
    event_id: str
    data: bytes
    expected: ExpectedVersion | None


def outgoing(
    subject: str, events: Sequence[Envelope], expected: ExpectedVersion | None
) -> list[Outgoing]:
    """Events of one aggregate, encoded; the first one carries the expected version."""
    return [
        # Within a batch a second expectation on the same subject is refused, whatever it says.
        Outgoing(subject, event.id, encode(event), None if number else expected)
        for number, event in enumerate(events)
    ]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The position of the last event, and whether the server knew its id already."""

    position: int
    duplicate: bool


class Publisher:
    """Publishes to one stream over one connection, with a bound on what is in flight."""

    def __init__(self, connection: Client, stream: str, *, timeout_s: float) -> None:
        self._connection = connection
        self._stream = stream
        self._timeout_s = timeout_s
        self._publishes = asyncio.Semaphore(_MAX_PUBLISHES_IN_FLIGHT)
        self._batches = asyncio.Semaphore(_MAX_OPEN_BATCHES)
        self._unanswered_at: float | None = None

    @property
    def problem(self) -> str | None:
        """That the server has not answered an append lately, if it has answered none since."""
        if self._unanswered_at is None:
            return None
        ago_s = asyncio.get_running_loop().time() - self._unanswered_at
        if ago_s > _NEWS_S:
            return None
        return (
            f"an append had no answer {ago_s:.0f} s ago; where NATS' disk was full, it takes "
            "nothing until there is room and it is restarted (velro doctor)"
        )

    async def one(self, event: Outgoing) -> Acknowledged:
        """Publish one event.

        Raises:
            Everything that `EventLog.append` raises.
        """
        self._check_size(event)
        return await self._within_deadline(self._publishes, [], event, self._headers(event))

    async def batch(self, events: Sequence[Outgoing]) -> Acknowledged:
        """Publish 1 to 1,000 events, all or none; their subjects may differ.

        Raises:
            AlreadyThere: the stream knows the id of at least one.
            Everything that `EventLog.append` raises.
        """
        if len(events) > MAX_BATCH_EVENTS:
            raise AppendTooLong(
                f"{len(events)} events cannot be appended at once; at most {MAX_BATCH_EVENTS} can"
            )
        batch_id = uuid4().hex
        shared_lines = f"content-type: {CONTENT_TYPE}\r\nNats-Batch-Id: {batch_id}\r\n"
        frames: list[bytes] = []
        for number, event in enumerate(events, 1):
            self._check_size(event)
            if number == len(events):
                break
            lines = (
                f"{shared_lines}Nats-Batch-Sequence: {number}\r\nNats-Msg-Id: {event.event_id}\r\n"
            )
            if event.expected is not None:
                lines += f"Nats-Expected-Last-Subject-Sequence: {event.expected}\r\n"
            if number == 1:
                lines += f"Nats-Expected-Stream: {self._stream}\r\n"
            frames.append(frame(event.subject, lines, event.data))
        headers = self._headers(events[-1]) | {
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(len(events)),
            "Nats-Batch-Commit": "1",
        }
        return await self._within_deadline(self._batches, frames, events[-1], headers)

    def _headers(self, event: Outgoing) -> dict[str, str]:
        headers = {
            "content-type": CONTENT_TYPE,
            "Nats-Msg-Id": event.event_id,
            "Nats-Expected-Stream": self._stream,
        }
        if event.expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(event.expected)
        return headers

    def _check_size(self, event: Outgoing) -> None:
        # The server's limit counts headers too. nats-py checks the body alone, and a server
        # that gets more closes the connection, which nats-py then never opens again.
        limit = self._connection.max_payload - _HEADER_BYTES - len(event.event_id)
        if len(event.data) > limit:
            raise EventTooLarge(
                f"event {event.event_id} is {len(event.data)} bytes; the server's max_payload "
                f"leaves {limit} beside the headers"
            )

    async def _within_deadline(
        self,
        slots: asyncio.Semaphore,
        frames: list[bytes],
        last: Outgoing,
        headers: dict[str, str],
    ) -> Acknowledged:
        """Send what goes before and then the last event, whose answer is the answer to all."""
        if not self._connection.is_connected:
            # nats-py would keep the event and send it after a reconnect, perhaps after we have
            # given up: better to know that nothing was written.
            raise LogUnavailable("there is no connection to the log's server")
        sent = False
        try:
            async with asyncio.timeout(self._timeout_s), slots:
                sent = True
                if frames:
                    await write(self._connection, frames)
                answer = await request(
                    self._connection,
                    last.subject,
                    last.data,
                    timeout_s=self._timeout_s,
                    headers=headers,
                )
        except TimeoutError as error:
            if not sent:
                raise LogUnavailable(
                    f"{self._timeout_s} s passed before there was room to send"
                ) from error
            self._unanswered_at = asyncio.get_running_loop().time()
            raise AppendOutcomeUnknown(
                f"no answer within {self._timeout_s} s for {last.event_id}"
            ) from error
        except NoRespondersError as error:
            raise LogUnavailable(
                f"nobody takes {last.subject}: there is no stream {self._stream}, or its servers "
                "are choosing a leader"
            ) from error
        except NOT_SENT as error:
            # Raised while sending, so a batch was not committed.
            raise LogUnavailable(f"the connection to the log's server ended: {error}") from error
        self._unanswered_at = None
        try:
            body = parse_answer(answer)
        except ApiError as error:
            self._raise(error, last)
        return Acknowledged(int(body["seq"]), bool(body.get("duplicate")))

    def _raise(self, error: ApiError, event: Outgoing) -> NoReturn:
        match error.err_code:
            case code if code in WRONG_LAST_SEQUENCE:
                raise VersionConflict(f"{event.subject} has other events: {error}") from error
            case code if code == DUPLICATE_IN_BATCH:
                raise AlreadyThere from error
            case code if code == DUPLICATE_IN_FLIGHT:
                raise AppendOutcomeUnknown(f"{event.event_id}: {error}") from error
            case code if code in TOO_LARGE:
                raise EventTooLarge(f"{event.subject}: {error}") from error
            case code if code in (WRONG_STREAM, BATCHES_TURNED_OFF):
                raise LogMismatch(f"{self._stream}, {event.subject}: {error}") from error
            case code if code in OUT_OF_RESOURCES or (
                code == STORE_FAILED
                and ("exceeded" in error.description or "no space" in error.description)
            ):
                raise LogFull(f"stream {self._stream} takes no more events: {error}") from error
            case code if code in BATCH_NOT_WHOLE:
                raise LogUnavailable(f"{event.subject}: {error}") from error
            case _ if error.code < 500:  # noqa: PLR2004 - as in HTTP
                raise AppendRefused(f"{event.subject}: {error}") from error
            case _:
                raise LogUnavailable(f"{event.subject}: {error}") from error
