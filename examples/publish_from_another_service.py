"""Another service publishes media of its own, and Velro stores it before its link dies.

A service that makes images or videos by itself has no need of Velro's HTTP API: it appends one
GenerationCompleted to the log, under an id of its own, and the storage service copies the outputs
into the bucket. Nothing else is to be agreed upon.

    velro up --detach
    python examples/publish_from_another_service.py https://…/picture.png

Hosts that media may be fetched from are an allowlist of the storage service (VELRO_MEDIA_HOSTS, by
provider); `velro up` allows its own sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from uuid6 import uuid7

from shared.contracts.codec import Codec
from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output
from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.storage_events import MediaLost, MediaStored
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import NOTHING_YET, EventLog
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.settings import LogSettings, loaded
from velro.options import use_environment


async def publish(
    log: EventLog, urls: list[str], *, provider: str, lifetime: timedelta
) -> tuple[str, int]:
    """Say that a generation completed; its id, and the position of that in the log.

    Appending again with the same id and version is safe: it is found to be there.
    """
    generation_id = str(uuid7())
    now = datetime.now(UTC)
    completed = GenerationCompleted(
        user_id="another-service",
        provider=provider,
        model="a-model-of-its-own",
        outputs=tuple(
            Output(index=index, source_url=url, expires_at=now + lifetime)
            for index, url in enumerate(urls)
        ),
    )
    envelope = seal(
        completed,
        generation_id=generation_id,
        at=now,
        context=Context(source="example/another-service"),
    )
    appended = await log.append("generation", generation_id, [envelope], expected=NOTHING_YET)
    return generation_id, appended.position


async def settled(
    log: EventLog, generation_id: str, *, outputs: int, after: int
) -> list[MediaStored | MediaLost]:
    """What became of each output: follows the log from a position on, as any service may."""
    codec = Codec()
    ended: dict[int, MediaStored | MediaLost] = {}
    async with aclosing(log.read(after=after)) as batches:
        async for records in batches:
            for record in records:
                if not record.subject.endswith(f".storage.{generation_id}"):
                    continue
                event = codec.decode(record.data).data
                if isinstance(event, MediaStored | MediaLost):
                    ended[event.index] = event
            if len(ended) == outputs:
                return [ended[index] for index in range(outputs)]
    raise AssertionError("the log has no end")


async def main() -> int:
    """Publish, wait, and say where everything is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", nargs="+", metavar="URL", help="media that exists, and will not")
    parser.add_argument("--provider", default="sandbox", help="whose allowlist of hosts counts")
    parser.add_argument("--lives-for", type=float, default=3600, help="seconds that the links live")
    parser.add_argument("--deadline", type=float, default=60, help="seconds to wait for the copies")
    given = parser.parse_args()

    use_environment()  # of `velro up`, where nothing else is set
    settings = loaded(LogSettings)
    async with connected(NatsAccess.of(settings), name="example") as connection:
        log = JetStreamLog(connection, settings.subjects, stream=settings.stream)
        lifetime = timedelta(seconds=given.lives_for)
        generation_id, position = await publish(
            log, given.urls, provider=given.provider, lifetime=lifetime
        )
        print(f"published {generation_id}")
        async with asyncio.timeout(given.deadline):
            outcomes = await settled(log, generation_id, outputs=len(given.urls), after=position)
    for outcome in outcomes:
        match outcome:
            case MediaStored(index=index, object=found):
                print(f"output {index}: {found.bucket}/{found.key}, {found.size_bytes:,} bytes")
            case MediaLost(index=index, reason=reason, detail=detail):
                print(f"output {index}: lost, {reason}: {detail}")
    return 0 if all(isinstance(outcome, MediaStored) for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
