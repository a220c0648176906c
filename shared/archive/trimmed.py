"""Which events have left the stream: for each generation, where the archive has them.

A stream of its own beside the log, with one small message a generation. It is written before the
events leave, so a history never looks shorter than it is; and who begins a new generation learns
from it, without the bucket, that there is no older one of that id.
"""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from shared.archive.departing import Departed, Through
from shared.errors import TryLater
from shared.event_log.jetstream_api import (
    MESSAGE_NOT_FOUND,
    STREAM_NOT_FOUND,
    ApiError,
    NoAnswer,
    ask,
)
from shared.event_log.jetstream_direct_get import DirectGet, Held
from shared.event_log.jetstream_publish import Outgoing, Publisher
from shared.event_log.jetstream_stream import stream_state
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

    from shared.contracts.subjects import Subjects

# All who look so often have looked since: three times as long is waited for.
_LOOK_AGAIN_S: Final = 5.0
_NANOSECONDS: Final = 1_000_000_000


class TrimmingElsewhere(TryLater):
    """Another process trims the same log; nothing was taken away by this one."""


class BeginningMissing(LogMismatch):
    """The log begins later than was trimmed: its beginning, or the index of it, was lost."""


class TrimmedIndex:
    """What has left one stream. Any number of readers; writers find each other out.

    Args:
        connection: to the log's server.
        subjects: those of the log.
        stream: the log's.
        timeout_s: the deadline of every single request.
        look_again_s: for how long it is believed that there is no index, and that the log begins
            where it should; for all alike.
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
        # With replicas a direct get may be answered by one that does not have the newest yet.
        self._replicated = False
        self._missing: str | None = None
        self._look_again_s = look_again_s
        self._look_again_at = 0.0
        self._looking = asyncio.Lock()

    async def of(self, generation_id: str) -> Departed | None:
        """What left the stream of one generation; None where nothing did.

        Raises:
            LogUnavailable: no answer.
            BeginningMissing: it cannot be known.
        """
        return (await self.of_each([generation_id])).get(generation_id)

    async def of_each(self, generation_ids: Sequence[str]) -> dict[str, Departed]:
        """The same of many, where something did.

        Raises:
            LogUnavailable: no answer.
            BeginningMissing: it cannot be known.
        """
        await self.see_that_nothing_is_missing()
        found: dict[str, Departed] = {}
        left = iter(generation_ids)
        while some := {self._subject(one): one for one in islice(left, MAX_BATCH_EVENTS)}:
            for held in (await self._held(list(some))).values():
                found[some[held.subject]] = Departed.model_validate_json(held.data)
        return found

    async def through(self) -> int:
        """The last position that was trimmed; 0 where none was.

        Raises:
            LogUnavailable: no answer.
        """
        return (await self._end())[0]

    async def see_that_it_has(self, departed: Mapping[str, Departed]) -> None:
        """See that all of this can be read from it.

        Raises:
            LogUnavailable: no answer.
            LogMismatch: something cannot; the message names the first.
        """
        found = await self.of_each(list(departed))
        for generation_id, each in departed.items():
            if found.get(generation_id, Departed()).joined(each) != found.get(generation_id):
                raise LogMismatch(
                    f"stream {self._name} does not have what was written of {generation_id}"
                )

    async def see_that_nothing_is_missing(self) -> None:
        """See that all that is not in the stream any more left it on purpose.

        Raises:
            LogUnavailable: no answer.
            BeginningMissing: it did not, or nobody knows any more.
        """
        await self._looked()
        if self._missing is not None:
            raise BeginningMissing(self._missing)

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
        await self._looked()
        return await self._end_now()

    async def _end_now(self) -> tuple[int, ExpectedVersion]:
        held = (await self._held_now([self._through])).get(self._through)
        if held is None:
            return 0, NOTHING_YET
        through = Through.model_validate_json(held.data)
        return through.position, ExpectedVersion(held.position)

    async def _held(self, subjects: Sequence[str]) -> dict[str, Held]:
        await self._looked()
        return await self._held_now(subjects)

    async def _held_now(self, subjects: Sequence[str]) -> dict[str, Held]:
        if not subjects or not self._there:
            return {}
        try:
            if self._replicated:
                asked = [self._held_by_leader(subject) for subject in subjects]
                return {one.subject: one for one in await asyncio.gather(*asked) if one}
            return await self._direct.last_of_each(subjects)
        except NoAnswer as error:
            raise LogUnavailable(f"stream {self._name}: {error}") from error

    async def _held_by_leader(self, subject: str) -> Held | None:
        try:
            answer = await self._ask("STREAM.MSG.GET", self._name, {"last_by_subj": subject})
        except ApiError as error:
            if error.err_code == MESSAGE_NOT_FOUND:
                return None
            raise LogUnavailable(f"stream {self._name}: {error}") from error
        message = answer["message"]
        return Held(int(message["seq"]), subject, "", base64.b64decode(message["data"]))

    async def _looked(self) -> None:
        """Know whether there is an index, and whether it accounts for the log's beginning."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now < self._look_again_at:
                return
            try:
                await self._look()
            except LogUnavailable:
                # That there is an index stays true while a cluster elects who answers.
                if not self._there:
                    raise
            self._look_again_at = now + self._look_again_s

    async def _look(self) -> None:
        # In this order: what leaves between the questions is written down before.
        first = await self._first_in_log()
        info = await self._info()
        self._there = info is not None
        self._replicated = info is not None and int(info["config"]["num_replicas"]) > 1
        through = (await self._end_now())[0] if first > 1 else 0
        self._missing = None
        if first > through + 1:
            self._missing = (
                f"the log begins at position {first}, and only what is up to {through} was "
                "trimmed: its beginning was taken away in another way, or the index of what was "
                "trimmed is lost; velro restore says whether the archive has it"
            )

    async def _first_in_log(self) -> int:
        try:
            state = await stream_state(self._connection, self._log, timeout_s=self._timeout_s)
        except (ApiError, NoAnswer) as error:
            raise LogUnavailable(f"stream {self._log}: {error}") from error
        return state.first

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
        """Make the stream, with as many replicas as the log has by now."""
        log = await self._ask("STREAM.INFO", self._log, None)
        replicas = int(log["config"]["num_replicas"])
        info = await self._info()
        settings: dict[str, object] = {
            "name": self._name,
            "subjects": [f"{self._every}.*", self._through],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "num_replicas": replicas,
            # No id comes twice, and a million remembered for minutes are hundreds of MB.
            "duplicate_window": _NANOSECONDS,
            "compression": "s2",
            "allow_direct": True,
            "allow_atomic": True,
            "deny_delete": True,
        }
        try:
            if info is None:
                # The same settings twice are no error.
                await self._ask("STREAM.CREATE", self._name, settings)
            elif int(info["config"]["num_replicas"]) < replicas:
                more = info["config"] | {"num_replicas": replicas}
                await self._ask("STREAM.UPDATE", self._name, more)
        except ApiError as error:
            raise LogMismatch(f"the server refuses stream {self._name}: {error}") from error
        self._there = True
        self._replicated = replicas > 1

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
