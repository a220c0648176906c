"""Log, read models and bucket that agree, each to be damaged by a test."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import GenerationCompleted, GenerationRequested
from shared.contracts.storage_events import MediaStored, MigrationCompleted
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.connection import connected
from shared.object_store.clients import s3_clients
from shared.object_store.keys import object_key
from shared.postgres.connecting import connect
from shared.projection.batch import Decoding
from shared.projection.runner import Projector
from shared.projection.tables import ensure
from shared.projection.waiting import PositionWatch
from shared.settings import LogSettings
from tests.object_stores import settings_for
from tests.projecting import QUICK
from tests.storage_media import picture
from velro.verify.read_models import compared
from velro.verify.verifying import Places, Wanted, verify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats.aio.client import Client

    from shared.contracts.events import AnyEvent
    from shared.contracts.subjects import Subjects
    from shared.object_store.clients import S3Clients
    from velro.stack.seaweedfs import S3Address
    from velro.verify.report import Report

WAIT_S = 30.0


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Three:
    """The three, and short ways to write to each.

    Attributes:
        live_s: how long links live, from now on.
        url: where the bytes of an output are, by generation and index.
    """

    nats: Client
    log: JetStreamLog
    subjects: Subjects
    dsn: str
    bucket: S3Address
    s3: S3Clients
    places: Places
    live_s: float = 3600.0
    url: str = "https://media.example/{id}/{index}.png"
    bodies: dict[tuple[str, int], bytes] = field(default_factory=dict[tuple[str, int], bytes])

    async def say(self, generation_id: str, *events: AnyEvent) -> None:
        """Append events, all of one family."""
        envelopes = [
            seal(event, generation_id=generation_id, at=now(), context=Context(source="tests"))
            for event in events
        ]
        await self.log.append(events[0].family, generation_id, envelopes, expected=None)

    async def stored(
        self, generation_id: str, *, outputs: int = 1, at_once: bool = True, put: bool = True
    ) -> list[StoredObject]:
        """A generation all of whose outputs are stored, and their objects."""
        objects = [self.object_of(generation_id, index) for index in range(outputs)]
        if put:
            for index, stored in enumerate(objects):
                await self.put(stored, self.bodies[generation_id, index])
        await self.requested(generation_id)
        await self.say(generation_id, self.completion(generation_id, objects, at_once=at_once))
        if not at_once:
            total = sum(stored.size_bytes for stored in objects)
            await self.say(
                generation_id,
                *(
                    MediaStored(index=index, attempt=1, object=stored, took_s=0.5)
                    for index, stored in enumerate(objects)
                ),
                MigrationCompleted(file_count=outputs, total_size_bytes=total),
            )
        return objects

    async def requested(self, generation_id: str) -> None:
        """A generation that has only begun."""
        await self.say(
            generation_id,
            GenerationRequested(
                user_id="ann", provider="fal", model="painter", input={"prompt": "a\0b"}
            ),
        )

    def completion(
        self, generation_id: str, objects: list[StoredObject], *, at_once: bool
    ) -> GenerationCompleted:
        """What completes a generation."""
        return GenerationCompleted(
            user_id="ann",
            provider="fal",
            model="painter",
            request_id="r",
            outputs=tuple(
                Output(
                    index=index,
                    source_url=self.url.format(id=generation_id, index=index),
                    expires_at=now() + timedelta(seconds=self.live_s),
                    media_type="image/png",
                    stored=stored if at_once else None,
                )
                for index, stored in enumerate(objects)
            ),
        )

    def object_of(self, generation_id: str, index: int) -> StoredObject:
        """What an output is, bytes and all."""
        body = picture(f"{generation_id}-{index}.png")
        self.bodies[generation_id, index] = body
        sha256 = hashlib.sha256(body).hexdigest()
        return StoredObject(
            bucket=self.bucket.bucket,
            key=object_key("ann", generation_id, index, sha256, "png"),
            size_bytes=len(body),
            sha256=sha256,
            media_type="image/png",
        )

    async def put(self, stored: StoredObject, body: bytes, **other: Any) -> None:  # noqa: ANN401 - headers of several types
        """Write an object as a copier does, but for `other`."""
        said: dict[str, Any] = {
            "Bucket": stored.bucket,
            "Key": stored.key,
            "Body": body,
            "ContentType": stored.media_type,
            "Metadata": {"sha256": stored.sha256},
        }
        client: Any = self.s3.plain
        await client.put_object(**(said | other))

    async def delete(self, stored: StoredObject) -> None:
        """Take an object away."""
        await self.s3.plain.delete_object(Bucket=stored.bucket, Key=stored.key)

    async def keys(self) -> set[str]:
        """What is in the bucket."""
        found = await self.s3.plain.list_objects_v2(Bucket=self.bucket.bucket)
        return {one.get("Key", "") for one in found.get("Contents", [])}

    async def projected(self) -> None:
        """Bring both read models to the log's end, and leave them there."""
        end = await self.log.last_position()
        for model in compared():
            async with AsyncExitStack() as stack:
                connection = await connect(self.dsn, schema=model.name, application_name="tests")
                await ensure(connection, model.name, model.model)
                await connection.close()
                watch = PositionWatch(self.dsn, model.name)
                await stack.enter_async_context(watch.running())
                projector = Projector[Any](
                    self.dsn, self.log, model.model, Decoding(self.subjects), timing=QUICK
                )
                await stack.enter_async_context(projector.running())
                await watch.wait_for(end, timeout_s=WAIT_S)

    async def sql(self, read_model: str, statement: str, *arguments: object) -> None:
        """Damage a table."""
        connection = await connect(self.dsn, schema=read_model, application_name="tests")
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def verified(self, **wanted: Any) -> Report:  # noqa: ANN401 - the fields of `Wanted`
        """What verifying says; by default nothing is too young to be an orphan."""
        async with asyncio.timeout(WAIT_S):
            return await verify(self.places, replace(Wanted(grace_s=0.0), **wanted))


@asynccontextmanager
async def three(
    *, nats_url: str, stream: str, subjects: Subjects, database: str, bucket: S3Address
) -> AsyncGenerator[Three]:
    """The three, empty."""
    settings = settings_for(bucket)
    log = LogSettings(nats_url=nats_url, stream=stream, subject_root=subjects.root)
    async with (
        connected(nats_url, name="tests") as nats,
        s3_clients(settings) as clients,
    ):
        await ensure_stream(nats, StreamDeclaration(name=stream, subjects=subjects))
        yield Three(
            nats=nats,
            log=JetStreamLog(nats, subjects, stream=stream),
            subjects=subjects,
            dsn=database,
            bucket=bucket,
            s3=clients,
            places=Places(log, (database, database), settings),
        )


def said(report: Report) -> list[tuple[str, ...]]:
    """Findings, short: kind, and which row or object."""
    return sorted(
        (
            finding.kind.value,
            *(part for part in (finding.read_model, finding.generation_id, finding.key) if part),
        )
        for finding in report.findings
    )


def a_name() -> str:
    """An id that no other test has."""
    return f"g{secrets.token_hex(6)}"
