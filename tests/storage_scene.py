"""Real servers, a media server of the test, and what it takes to start the service beside them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.media.copier import media_copier
from shared.media.settings import MediaSettings
from shared.object_store.probe import PREFIX
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from storage_svc.application.recording import Recorder
from storage_svc.application.store_output import StoreOutput
from storage_svc.domain.policies import Refetching
from tests.storage_media import MediaServer, media_server
from tests.storage_process import Wire, environment
from tests.storage_world import World, now, open_world
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from velro.stack.seaweedfs import S3Address


@dataclass(frozen=True)
class Scene:
    world: World
    media: MediaServer
    bucket: S3Address
    env: dict[str, str]

    @property
    def subject_root(self) -> str:
        return self.env["VELRO_SUBJECT_ROOT"]

    async def completed(
        self,
        generation_id: str,
        *,
        dies_in: timedelta = timedelta(hours=1),
        outputs: int = 1,
        request_id: str | None = None,
    ) -> None:
        """A generation whose outputs the media server has, as `<id>-<index>.png`."""
        url = f"http://{self.media.host}/{{id}}-{{index}}.png"
        await self.world.completed(
            generation_id, dies_in=dies_in, outputs=outputs, url=url, request_id=request_id
        )

    async def objects(self) -> dict[str, tuple[bytes, str]]:
        """What is in the bucket: bytes and content type, by key."""

        def read() -> dict[str, tuple[bytes, str]]:
            client = s3_client(self.bucket)
            found = client.list_objects_v2(Bucket=self.bucket.bucket).get("Contents", [])
            objects: dict[str, tuple[bytes, str]] = {}
            for one in found:
                key = str(one["Key"])
                if key.startswith(f"{PREFIX}/"):
                    continue  # a service is finding out what the bucket can do
                answer = client.get_object(Bucket=self.bucket.bucket, Key=key)
                objects[key] = (answer["Body"].read(), str(answer["ContentType"]))
            client.close()
            return objects

        return await asyncio.to_thread(read)

    @asynccontextmanager
    async def storing(
        self,
        bucket: S3Address | None = None,
        refetching: Refetching | None = None,
        *,
        patience: Mapping[str, object] | None = None,
    ) -> AsyncGenerator[StoreOutput]:
        """The use case in this process, with real downloads and real puts."""
        address = bucket or self.bucket
        s3 = S3Settings.model_validate(asdict(address) | {"timeout_s": 5.0})
        told = {
            "media_http_hosts": (self.media.host,),
            "spool_dir": Path(self.env["VELRO_SPOOL_DIR"]),
            "media_max_bytes": 1_000_000,
            **(patience or {}),
        }
        media = MediaSettings.model_validate(told)
        recorder = Recorder(self.world.log, clock=now, source="tests")
        async with s3_object_store(s3) as store, media_copier(media, store) as copier:
            yield StoreOutput(
                copier,
                recorder,
                clock=now,
                jitter=lambda: 0.0,
                refetching=refetching or Refetching(),
            )

    def through(self, *, nats: Wire | None = None, s3: Wire | None = None) -> dict[str, str]:
        """The environment of a service whose wires the test holds."""
        env = dict(self.env)
        if nats is not None:
            env["VELRO_NATS_URL"] = f"nats://127.0.0.1:{nats.port}"
        if s3 is not None:
            env["VELRO_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{s3.port}"
        return env


@asynccontextmanager
async def open_scene(
    *,
    nats_url: str,
    subject_root: str,
    stream: str,
    database: str,
    bucket: S3Address,
    spool: Path,
    projecting: bool = False,
) -> AsyncGenerator[Scene]:
    """The scene of one test; by default it is the service that projects."""
    async with AsyncExitStack() as stack:
        media = await stack.enter_async_context(media_server())
        world = await stack.enter_async_context(
            open_world(
                nats_url=nats_url,
                subject_root=subject_root,
                stream=stream,
                database=database,
                projecting=projecting,
            )
        )
        env = environment(
            nats_url=nats_url,
            subject_root=subject_root,
            stream=stream,
            database=database,
            bucket=bucket,
            media_host=media.host,
            spool=spool,
        )
        yield Scene(world, media, bucket, env)


def port_of(url: str) -> int:
    """The port that a URL names."""
    port = urlsplit(url).port
    assert port is not None
    return port
