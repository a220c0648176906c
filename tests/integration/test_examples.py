"""The examples do what they say, as somebody who copies them would find."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.storage_media import picture
from tests.storage_process import storage_process

if TYPE_CHECKING:
    from tests.storage_scene import Scene

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run(env: dict[str, str], *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(40):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_media_of_another_service_is_stored(scene: Scene) -> None:
    urls = [scene.media.url("one.png"), scene.media.url("two.png")]
    async with storage_process(scene.env, "serve", quiet=True):
        code, out = await run(scene.env, str(EXAMPLES / "publish_from_another_service.py"), *urls)
    assert code == 0, out
    bodies = [body for body, _ in (await scene.objects()).values()]
    assert sorted(bodies) == sorted([picture("one.png"), picture("two.png")])
    for key in await scene.objects():
        assert key in out
