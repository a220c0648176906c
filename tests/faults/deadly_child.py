"""A projector in a process of its own whose fold does not survive events of one model.

`python -m tests.faults.deadly_child <nats> <stream> <root> <dsn> <how>`: how it dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from typing import TYPE_CHECKING

from generation_svc.read_model.model import GenerationModel
from shared.contracts.generation_events import GenerationRequested
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.connection import connected
from shared.projection.batch import Decoding
from shared.projection.runner import Projector, ProjectorTiming

if TYPE_CHECKING:
    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded

DEADLY = "deadly"
TIMING = ProjectorTiming(
    standby_interval_s=0.1, first_pause_s=0.02, longest_pause_s=0.2, attempts=2, fold_limit_s=1.0
)


class DeadlyModel(GenerationModel):
    """Ends its process over some events, as a defect in a library's C code would."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def evolve(self, row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
        data = recorded.envelope.data
        if isinstance(data, GenerationRequested) and data.model == DEADLY:
            match self._how:
                case "exits":
                    os._exit(1)
                case "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    for _ in count():  # blocks, for ever
                        pass
        return super().evolve(row, recorded)


async def main(nats_url: str, stream: str, root: str, dsn: str, how: str) -> None:
    subjects = Subjects(root)
    async with connected(nats_url, name="child") as nats:
        log = JetStreamLog(nats, subjects, stream=stream)
        projector = Projector(dsn, log, DeadlyModel(how), Decoding(subjects), timing=TIMING)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, projector.stop)
        await projector.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
