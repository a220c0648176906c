"""The bucket's keys are those of a role, which AWS hands out for a while and then anew."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.reasons import ReasonCode
from shared.object_store.credentials import KeysUnreadable
from shared.object_store.port import Put, StoreFailed
from shared.object_store.s3 import SINGLE_PUT_BYTES, S3ObjectStore, s3_object_store
from shared.object_store.settings import S3Settings
from tests.object_stores import PNG, RcloneS3, an_order, as_stored, rclone_with_keys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_other_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@dataclass
class Role:
    """What a container is told of its role: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html."""

    keys: tuple[str, str]
    lives: timedelta = timedelta(hours=6)
    asked: int = 0
    away: bool = False

    async def told(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.away:
            return web.Response(status=503)
        access_key, secret_key = self.keys
        return web.json_response(
            {
                "AccessKeyId": access_key,
                "SecretAccessKey": secret_key,
                "Token": f"a-token/of+{access_key}==",
                "Expiration": f"{datetime.now(UTC) + self.lives:%Y-%m-%dT%H:%M:%SZ}",
            }
        )


@asynccontextmanager
async def handed_out(role: Role, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    app = web.Application()
    app.router.add_get("/role", role.told)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/role")
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bucket_of(
    role: Role, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[S3ObjectStore, RcloneS3]]:
    """A store that signs as the role, and the service, which takes the keys of its beginning."""
    with rclone_with_keys(directory, role.keys) as server:
        settings = S3Settings.model_validate(
            {"endpoint_url": server.address.endpoint_url, "aws_credentials": True}
        )
        async with handed_out(role, monkeypatch), s3_object_store(settings) as store:
            yield store, server


async def test_what_a_role_hands_out_is_signed_with_until_it_hands_out_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So near to its end that each request asks for other keys.
    role = Role(("first-access", "first-secret"), lives=timedelta(minutes=5))
    async with bucket_of(role, tmp_path, monkeypatch) as (store, server):
        assert (await store.learn()).signed_urls
        order = an_order(tmp_path, PNG + b"of a role")
        assert await store.put(order) is Put.STORED
        # No longer than the keys are certain to live.
        assert "X-Amz-Expires=600&" in await store.url(as_stored(store.bucket, order))

        role.keys = ("second-access", "second-secret")
        server.change_keys(role.keys)
        film = an_order(tmp_path, PNG + bytes(SINGLE_PUT_BYTES), index=1)
        assert await store.put(film) is Put.STORED
        assert [piece async for piece in store.read(order.key)]
        assert {key async for key in store.keys("")} == {order.key, film.key}


async def test_a_role_whose_keys_live_on_is_not_asked_with_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(("access", "secret"))
    async with bucket_of(role, tmp_path, monkeypatch) as (store, _):
        for index in range(3):
            await store.put(an_order(tmp_path, PNG + bytes(index + 1), index=index))
    assert role.asked == 1


async def test_keys_that_end_while_none_are_handed_out_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(("access", "secret"), lives=timedelta(minutes=5))
    async with bucket_of(role, tmp_path, monkeypatch) as (store, _):
        role.away = True
        with pytest.raises(StoreFailed) as failed:
            await store.put(an_order(tmp_path))
    assert failed.value.reason is ReasonCode.BUCKET_UNAVAILABLE
    assert "retrieving credentials from container-role" in failed.value.detail


async def test_where_aws_gives_no_keys_that_is_told() -> None:
    with pytest.raises(KeysUnreadable, match="VELRO_S3_AWS_CREDENTIALS is set, and AWS gives no"):
        async with s3_object_store(S3Settings(aws_credentials=True)):
            pass
