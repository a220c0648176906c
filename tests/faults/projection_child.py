"""A projector in a process of its own that kills itself at one statement of its projecting.

`python -m tests.faults.projection_child <nats> <stream> <root> <dsn> <statement> <moment>`: the
statement is counted from the first one that begins a projecting transaction, 0 for never; the
moment is `before` it is sent, or `sent`, when it is on its way and nobody hears the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import asyncpg

from generation_svc.read_model.model import GenerationModel
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_reader import ReadLimits
from shared.messaging.connection import connected
from shared.projection.applying import Applier
from shared.projection.batch import Decoding
from shared.projection.runner import Projector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Small, so that what is tested spans several transactions.
BATCH = 5


class CrashPoint:
    """Counts the statements of projecting transactions, and ends the process at one of them."""

    def __init__(self, statement: int, moment: str) -> None:
        self._left = statement
        self._moment = moment
        self._projecting = False

    def install(self) -> None:
        """Stand between asyncpg's connection and its protocol, for execute and for fetch."""
        projecting: Any = Applier
        begin = projecting.apply

        async def apply(*arguments: Any) -> Any:  # noqa: ANN401 - stands in for any
            self._projecting = True
            return await begin(*arguments)

        projecting.apply = apply
        for name in ("execute", "_execute"):
            original = getattr(asyncpg.Connection, name)
            setattr(asyncpg.Connection, name, self._counting(original))

    def _counting(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(connection: Any, query: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - the same
            if not self._projecting:
                return await original(connection, query, *args, **named)
            # `execute` with arguments goes through `_execute`, where it is counted.
            if original.__name__ == "execute" and args:
                return await original(connection, query, *args, **named)
            self._left -= 1
            if self._left:
                return await original(connection, query, *args, **named)
            print(query.split(maxsplit=1)[0], flush=True)  # noqa: T201 - tells the test where it was
            answer = None
            if self._moment == "sent":
                answer = asyncio.ensure_future(original(connection, query, *args, **named))
                await asyncio.sleep(0)  # it is written to the socket
            os.kill(os.getpid(), signal.SIGKILL)
            return await answer if answer else None

        return counted


async def main(nats_url: str, stream: str, root: str, dsn: str) -> None:
    subjects = Subjects(root)
    async with connected(nats_url, name="child") as nats:
        log = JetStreamLog(nats, subjects, stream=stream, read_limits=ReadLimits(batch=BATCH))
        await Projector(dsn, log, GenerationModel(), Decoding(subjects)).run()


if __name__ == "__main__":
    *where, statement, moment = sys.argv[1:]
    CrashPoint(int(statement), moment).install()
    asyncio.run(main(*where))
