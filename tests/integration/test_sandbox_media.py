from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from velro.sandbox.server import RunningSandbox, running_sandbox
from velro.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from velro.sandbox.ledger import OutputStats

KEY = {"Authorization": "Key sandbox-key"}


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[RunningSandbox, None]:
    async with running_sandbox(SandboxSettings(data=tmp_path)) as running:
        yield running


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        yield http


async def make(
    sandbox: RunningSandbox,
    client: httpx.AsyncClient,
    faults: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    **changes: object,
) -> OutputStats:
    """One finished request's first output."""
    work = {"prompt": "a fox", "image_size": {"width": 64, "height": 64}} | changes
    answer = await client.post(
        f"{sandbox.url}/fal-ai/flux",
        json=work | {"sandbox": faults or {}},
        headers=KEY | (headers or {}),
    )
    request_id = answer.json()["request_id"]
    await sandbox.settled(request_id)
    return (await record(sandbox, client, request_id))[0]


async def record(
    sandbox: RunningSandbox, client: httpx.AsyncClient, request_id: str
) -> list[OutputStats]:
    answer = await client.get(f"{sandbox.url}/_sandbox/requests/{request_id}")
    assert answer.status_code == 200
    (found,) = [each for each in sandbox.stats().requests if each.request_id == request_id]
    return list(found.outputs)


@pytest.mark.parametrize(
    ("output_format", "media_type", "pillow"),
    [("png", "image/png", "PNG"), ("jpeg", "image/jpeg", "JPEG"), ("webp", "image/webp", "WEBP")],
)
async def test_a_link_serves_the_bytes_that_the_books_name(
    sandbox: RunningSandbox,
    client: httpx.AsyncClient,
    output_format: str,
    media_type: str,
    pillow: str,
) -> None:
    output = await make(sandbox, client, output_format=output_format)
    answer = await client.get(output.url)
    assert answer.headers["content-type"] == media_type
    assert hashlib.sha256(answer.content).hexdigest() == output.sha256
    assert Image.open(io.BytesIO(answer.content)).format == pillow


async def test_the_same_request_is_drawn_the_same_twice(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    first = await make(sandbox, client, seed=3)
    second = await make(sandbox, client, seed=3)
    assert (first.sha256, first.url != second.url) == (second.sha256, True)


async def test_a_part_of_a_file_can_be_had(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client)
    whole = (await client.get(output.url)).content
    part = await client.get(output.url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])


async def test_downloads_are_counted_by_link(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    await make(sandbox, client, {"media_status": 503, "media_times": 2})
    url = sandbox.stats().requests[0].outputs[0].url
    statuses = [(await client.get(url)).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    (output,) = sandbox.stats().requests[0].outputs
    assert (output.downloads, output.answers) == (3, {503: 2, 200: 1})


@pytest.mark.parametrize("told", ["the client's preference", "the fault"])
async def test_a_link_dies_when_told_to_and_its_bytes_with_it(
    sandbox: RunningSandbox, client: httpx.AsyncClient, tmp_path: Path, told: str
) -> None:
    preference = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 0.3}'}
    if told == "the fault":
        output = await make(sandbox, client, {"link_lifetime_s": 0.3})
    else:
        output = await make(sandbox, client, headers=preference)
    path = tmp_path / "media" / output.url.rpartition("/")[2]
    async with asyncio.timeout(5):
        while (answer := await client.get(output.url)).status_code == 200:
            assert hashlib.sha256(answer.content).hexdigest() == output.sha256
    assert answer.status_code == 410
    assert not path.exists()
    assert not sandbox.stats().requests[0].outputs[0].alive


async def test_nobody_need_ask_for_a_dead_file_to_be_deleted(
    sandbox: RunningSandbox, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await make(sandbox, client, {"link_lifetime_s": 0.1})
    folder = tmp_path / "media"
    async with asyncio.timeout(5):
        while list(folder.iterdir()):
            await asyncio.to_thread(folder.stat)


async def test_a_link_can_be_killed_at_once(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client)
    killed = await client.delete(output.url.replace("/files/", "/_sandbox/files/"))
    assert killed.status_code == 204
    assert (await client.get(output.url)).status_code == 410


async def test_living_links_survive_a_restart(tmp_path: Path, client: httpx.AsyncClient) -> None:
    settings = SandboxSettings(data=tmp_path)
    async with running_sandbox(settings) as sandbox:
        output = await make(sandbox, client)
        port = int(sandbox.url.rpartition(":")[2])
    (tmp_path / "media" / "a-stranger").write_bytes(b"left behind")
    async with running_sandbox(settings, port=port):
        content = (await client.get(output.url)).content
    assert hashlib.sha256(content).hexdigest() == output.sha256
    assert not (tmp_path / "media" / "a-stranger").exists()


async def test_media_stay_within_their_bound(tmp_path: Path, client: httpx.AsyncClient) -> None:
    settings = SandboxSettings(data=tmp_path, max_media_bytes=8000)
    async with running_sandbox(settings) as sandbox:
        outputs = [await make(sandbox, client, seed=seed) for seed in range(12)]
        statuses = [(await client.get(output.url)).status_code for output in outputs]
    assert (statuses[0], statuses[-1]) == (410, 200)
    assert sum(path.stat().st_size for path in (tmp_path / "media").glob("*.jpeg")) <= 8000


async def test_a_file_may_announce_more_than_comes(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client, {"media": "announce_more"})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(output.url)


async def test_a_file_may_announce_less_than_comes(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client, {"media": "announce_less"})
    content = (await client.get(output.url)).content
    assert len(content) == output.size_bytes // 2


async def test_a_connection_may_be_cut_in_the_middle_and_hold_the_next_time(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client, {"media": "cut", "media_times": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(output.url)
    assert len((await client.get(output.url)).content) == output.size_bytes


async def test_a_page_may_come_under_a_pictures_type(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client, {"media": "html"})
    answer = await client.get(output.url)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"<!doctype html>")


async def test_a_picture_may_come_under_another_type(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    output = await make(sandbox, client, {"media_type": "text/plain"})
    answer = await client.get(output.url)
    assert answer.headers["content-type"].startswith("text/plain")
    assert hashlib.sha256(answer.content).hexdigest() == output.sha256


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
async def test_a_download_may_be_refused(
    sandbox: RunningSandbox, client: httpx.AsyncClient, status: int
) -> None:
    faults = {"media_status": status, "media_retry_after": "3"}
    output = await make(sandbox, client, faults)
    answer = await client.get(output.url)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "3")


@pytest.mark.parametrize("target", ["self", "http://169.254.169.254/latest", "file:///etc/passwd"])
async def test_a_download_may_be_sent_elsewhere(
    sandbox: RunningSandbox, client: httpx.AsyncClient, target: str
) -> None:
    output = await make(sandbox, client, {"media_redirect": target})
    answer = await client.get(output.url)
    own = httpx.URL(output.url).path
    assert (answer.status_code, answer.headers["location"]) == (
        302,
        own if target == "self" else target,
    )


async def test_bytes_may_come_slowly(sandbox: RunningSandbox, client: httpx.AsyncClient) -> None:
    output = await make(sandbox, client, {"media_bytes_per_s": 10_000})
    started = asyncio.get_running_loop().time()
    content = (await client.get(output.url)).content
    took_s = asyncio.get_running_loop().time() - started
    assert hashlib.sha256(content).hexdigest() == output.sha256
    assert took_s >= output.size_bytes / 10_000 * 0.5


async def test_an_unknown_fault_is_refused(
    sandbox: RunningSandbox, client: httpx.AsyncClient
) -> None:
    answer = await client.post(
        f"{sandbox.url}/fal-ai/flux", json={"sandbox": {"explode": True}}, headers=KEY
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "sandbox", "explode"]
