"""Which events have left the stream: for each generation, where the archive has them.

A stream of its own beside the log, with one small message a generation. It is written before the
events leave, so a history never looks shorter than it is; and who begins a new generation learns
from it, without the bucket, that there is no older one of that id.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from shared.contracts.events import Fact
from shared.errors import TryLater
from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, NoAnswer, ask
from shared.event_log.jetstream_direct_get import DirectGet
from shared.event_log.jetstream_publish import Outgoing, Publisher
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    NOTHING_YET,
    ExpectedVersion,
    LogMismatch,
    LogUnavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client

    from shared.contracts.events import Family
    from shared.contracts.subjects import Subjects
    from shared.event_log.jetstream_direct_get import Held

# All who look so often have looked since: three times as long is waited for.
_LOOK_AGAIN_S: Final = 5.0


class TrimmingElsewhere(TryLater):
    """Another process trims the same log; nothing was taken away by this one."""


class Departed(Fact):
    """At which positions the archive has the events of one generation that left the stream."""

    generation: tuple[int, ...] = ()
    storage: tuple[int, ...] = ()

    def of(self, family: Family) -> tuple[int, ...]:
        """Those of one aggregate, in order."""
        return self.generation if family == "generation" else self.storage

    def joined(self, other: Departed) -> Departed:
        """Those of both."""
        return Departed(
            generation=tuple(sorted({*self.generation, *other.generation})),
            storage=tuple(sorted({*self.storage, *other.storage})),
        )


class Through(Fact):
    """Up to which position events were trimmed, or are about to be."""

    position: int


class TrimmedIndex:
    """What has left one stream. Any number of readers; writers find each other out.

    Args:
        connection: to the log's server.
        subjects: those of the log.
        stream: the log's.
        timeout_s: the deadline of every single request.
        look_again_s: for how long it is believed that nothing was ever trimmed; for all alike.
    """

    def __init__(
        self,
        connection: Client,
        subjects: Subjects,
        stream: str,
        *,
        timeout_s: float = 5.0,
        look_again_s: float = _LOOK_AGAIN_S,
    ) -> None:
        self._connection = connection
        self._log = stream
        self._name = f"{stream}_TRIMMED"
        self._every = f"{subjects.root}.trimmed"
        self._through = f"{subjects.root}.trimmed-through"
        self._timeout_s = timeout_s
        self._direct = DirectGet(connection, self._name, timeout_s=timeout_s)
        self._publisher = Publisher(connection, self._name, timeout_s=timeout_s)
        self._there = False
        self._look_again_s = look_again_s
        self._look_again_at = 0.0
        self._looking = asyncio.Lock()

    async def of(self, generation_id: str) -> Departed | None:
        """What left the stream of one generation; None where nothing did.

        Raises:
            LogUnavailable: no answer.
        """
        return (await self.of_each([generation_id])).get(generation_id)

    async def of_each(self, generation_ids: Sequence[str]) -> dict[str, Departed]:
        """The same of many, where something did.

        Raises:
            LogUnavailable: no answer.
        """
        held = await self._held([self._subject(one) for one in generation_ids])
        found = {one: held.get(self._subject(one)) for one in generation_ids}
        return {
            one: Departed.model_validate_json(each.data)
            for one, each in found.items()
            if each is not None
        }

    async def through(self) -> int:
        """The last position that was trimmed; 0 where none was.

        Raises:
            LogUnavailable: no answer.
        """
        return (await self._end())[0]

    async def add(self, departed: Mapping[str, Departed], *, through: int) -> None:
        """Write down what is about to leave the stream; to what is written already it is added.

        Returns when every reader knows that there is an index: some seconds after it was made.

        Raises:
            TrimmingElsewhere: another process writes too; a part may be written, and does no harm.
            LogUnavailable, LogFull, AppendOutcomeUnknown: the same.
            LogMismatch: the server takes no such stream.
        """
        await self._ensure()
        before, version = await self._end()
        left = iter(departed.items())
        try:
            while some := dict(islice(left, MAX_BATCH_EVENTS)):
                held = await self._held([self._subject(one) for one in some])
                await self._publisher.batch(
                    [self._message(one, each, held) for one, each in some.items()]
                )
            # Whoever wrote meanwhile has moved this one: then nothing is taken away here.
            end = Through(position=max(before, through)).model_dump_json().encode()
            await self._publisher.one(Outgoing(self._through, uuid4().hex, end, version))
        except VersionConflict as error:
            raise TrimmingElsewhere(f"stream {self._log} is being trimmed elsewhere") from error
        await self._known_to_all()

    def _subject(self, generation_id: str) -> str:
        return f"{self._every}.{generation_id}"

    def _message(
        self, generation_id: str, departed: Departed, held: Mapping[str, Held]
    ) -> Outgoing:
        subject = self._subject(generation_id)
        expected = NOTHING_YET
        if (before := held.get(subject)) is not None:
            departed = Departed.model_validate_json(before.data).joined(departed)
            expected = ExpectedVersion(before.position)
        data = departed.model_dump_json(exclude_defaults=True).encode()
        return Outgoing(subject, uuid4().hex, data, expected)

    async def _end(self) -> tuple[int, ExpectedVersion]:
        held = (await self._held([self._through])).get(self._through)
        if held is None:
            return 0, NOTHING_YET
        through = Through.model_validate_json(held.data)
        return through.position, ExpectedVersion(held.position)

    async def _held(self, subjects: Sequence[str]) -> dict[str, Held]:
        if not subjects or not await self._is_there():
            return {}
        try:
            return await self._direct.last_of_each(subjects)
        except NoAnswer as error:
            raise LogUnavailable(f"stream {self._name}: {error}") from error

    async def _is_there(self) -> bool:
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if not self._there and now >= self._look_again_at:
                self._there = await self._info() is not None
                self._look_again_at = now + self._look_again_s
            return self._there

    async def _info(self) -> dict[str, Any] | None:
        # A direct get that nobody answers may as well be a server that is away: only this
        # answer says for certain that there is no such stream.
        try:
            return await self._ask("STREAM.INFO", self._name, None)
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise LogUnavailable(f"stream {self._name}: {error}") from error

    async def _ensure(self) -> None:
        if self._there:
            return
        log = await self._ask("STREAM.INFO", self._log, None)
        settings: dict[str, object] = {
            "name": self._name,
            "subjects": [f"{self._every}.*", self._through],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "num_replicas": log["config"]["num_replicas"],
            "compression": "s2",
            "allow_direct": True,
            "allow_atomic": True,
            "deny_delete": True,
        }
        try:
            # The same settings twice are no error.
            await self._ask("STREAM.CREATE", self._name, settings)
        except ApiError as error:
            raise LogMismatch(f"the server refuses stream {self._name}: {error}") from error
        self._there = True

    async def _known_to_all(self) -> None:
        info = await self._info()
        if info is None:
            raise LogUnavailable(f"stream {self._name} is gone")
        # Both by the server's clock.
        age = _moment(str(info["ts"])) - _moment(str(info["created"]))
        await asyncio.sleep(max(3 * self._look_again_s - age.total_seconds(), 0.0))

    async def _ask(
        self, question: str, stream: str, body: Mapping[str, object] | None
    ) -> dict[str, Any]:
        try:
            return await ask(
                self._connection, f"$JS.API.{question}.{stream}", body, timeout_s=self._timeout_s
            )
        except NoAnswer as error:
            raise LogUnavailable(f"stream {stream}: {error}") from error


def _moment(text: str) -> datetime:
    # Nanoseconds are more than Python's own reader takes.
    return datetime.fromisoformat(f"{text.rstrip('Z').partition('.')[0]}+00:00")
