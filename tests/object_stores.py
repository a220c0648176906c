"""S3 services that a test may put into, and a service of ours that answers as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
from aiohttp import web

from shared.contracts.facts import StoredObject
from shared.object_store.keys import object_key
from shared.object_store.port import PutOrder
from shared.object_store.settings import S3Settings
from velro.stack import ports
from velro.stack.nats import program
from velro.stack.process import ManagedProcess
from velro.stack.seaweedfs import S3Address, has_bucket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from tests.guarded_nats import Issuer

_KEPT = "x-amz-meta"
PNG = b"\x89PNG\r\n\x1a\n"


def settings_for(address: S3Address, **changed: object) -> S3Settings:
    return S3Settings.model_validate(asdict(address) | {"timeout_s": 5.0} | changed)


def an_order(folder: Path, body: bytes = PNG + b"one", *, index: int = 0) -> PutOrder:
    """A file on disk, and the order to put it."""
    sha256 = hashlib.sha256(body).hexdigest()
    path = folder / sha256
    path.write_bytes(body)
    return PutOrder(
        key=object_key("ann", "generation-1", index, sha256, "png"),
        path=path,
        size_bytes=len(body),
        sha256=sha256,
        media_type="image/png",
        metadata={"generation-id": "generation-1", "output-index": str(index)},
    )


def as_stored(bucket: str, order: PutOrder) -> StoredObject:
    """What an event says of an order that was put."""
    return StoredObject(
        bucket=bucket,
        key=order.key,
        size_bytes=order.size_bytes,
        sha256=order.sha256,
        media_type=order.media_type,
    )


class RcloneS3:
    """`rclone serve s3` on a folder: it ignores conditions and compares no SHA-256.

    With an issuer it speaks TLS.
    """

    def __init__(
        self, directory: Path, keys: tuple[str, str], issuer: Issuer | None = None
    ) -> None:
        chosen = ports.choose(dict.fromkeys(("s3",)), directory / "rclone.json")
        scheme = "http" if issuer is None else "https"
        self.address = S3Address(f"{scheme}://127.0.0.1:{chosen['s3']}", *keys, "media")
        self._directory = directory
        self._issuer = issuer
        (directory / "rclone" / self.address.bucket).mkdir(parents=True)
        self._server = self._started()

    def change_keys(self, keys: tuple[str, str]) -> None:
        """From now on only these are let in."""
        self.stop()
        self.address = replace(self.address, access_key=keys[0], secret_key=keys[1])
        self._server = self._started()

    def stop(self) -> None:
        self._server.kill()

    def _started(self) -> ManagedProcess:
        address = self.address
        certified: list[str] = []
        if self._issuer is not None:
            certificate, key = self._issuer.issue("rclone")
            certified = [f"--cert={certificate}", f"--key={key}"]
        server = ManagedProcess(
            name="rclone",
            argv=[
                program("rclone"),
                "serve",
                "s3",
                f"--addr={address.endpoint_url.partition('://')[2]}",
                *certified,
                f"--auth-key={address.access_key},{address.secret_key}",
                "--config=",
                str(self._directory / "rclone"),
            ],
            directory=self._directory,
            cwd=self._directory,
            env={},
            ready=lambda: has_bucket(address) if self._issuer is None else self._answers(),
            owned=True,
        )
        server.start()
        return server

    def _answers(self) -> bool:
        assert self._issuer is not None
        tls = ssl.create_default_context(cafile=self._issuer.ca_file)
        try:
            return bool(httpx.get(self.address.endpoint_url, verify=tls, trust_env=False))
        except httpx.TransportError:
            return False


@contextmanager
def rclone_with_keys(
    directory: Path, keys: tuple[str, str], issuer: Issuer | None = None
) -> Generator[RcloneS3]:
    server = RcloneS3(directory, keys, issuer)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def rclone_s3(directory: Path, issuer: Issuer | None = None) -> Generator[S3Address]:
    with rclone_with_keys(directory, ("velro-access", "velro-secret"), issuer) as server:
        yield server.address


@dataclass
class ToldS3:
    """Keeps what is put, and answers one kind of request with an error where it is told to."""

    address: S3Address = field(default_factory=lambda: S3Address("", "access", "secret", "media"))
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    silent: set[str] = field(default_factory=set[str])
    swallow_bytes: int = 0
    garble: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    methods: list[str] = field(default_factory=list[str])
    objects: dict[str, tuple[bytes, dict[str, str]]] = field(
        default_factory=dict[str, "tuple[bytes, dict[str, str]]"]
    )

    async def handle(self, request: web.Request) -> web.Response:
        self.methods.append(request.method)
        if request.method in self.silent:
            await self.over.wait()
        if request.method in self.refusals:
            status, code = self.refusals[request.method]
            body = f"<Error><Code>{code}</Code><Message>so told</Message></Error>"
            return web.Response(status=status, text=body, content_type="application/xml")
        return await self._done(request)

    async def _done(self, request: web.Request) -> web.Response:
        match request.method:
            case "PUT":
                body = await request.read()
                body = body[: len(body) - self.swallow_bytes]
                kept = {k: v for k, v in request.headers.items() if k.lower().startswith(_KEPT)}
                self.objects[request.path] = (body[::-1] if self.garble else body, kept)
                return web.Response(headers={"ETag": '"etag"'})
            case "DELETE":
                self.objects.pop(request.path, None)
                return web.Response(status=204)
            case "GET" | "HEAD" if request.path in self.objects:
                body, kept = self.objects[request.path]
                return web.Response(body=body, headers=kept)
            case "GET" | "HEAD":
                is_bucket = request.path == f"/{self.address.bucket}"
                return web.Response(status=200 if is_bucket else 404)
            case _:
                return web.Response(status=501)


@asynccontextmanager
async def told_s3() -> AsyncGenerator[ToldS3]:
    told = ToldS3()
    app = web.Application(client_max_size=100_000_000)
    app.router.add_route("*", "/{path:.*}", told.handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address: Any = runner.addresses[0]
    told.address = S3Address(f"http://127.0.0.1:{address[1]}", "access", "secret", "media")
    try:
        yield told
    finally:
        told.over.set()
        await runner.cleanup()
