from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from pathlib import Path


async def test_as_a_process_it_says_where_it_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "velro.sandbox", "--data", str(tmp_path), "--key", "k"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            said = json.loads(await process.stdout.readline())
            assert json.loads((tmp_path / "sandbox.json").read_text()) == said
            assert said["pid"] == process.pid
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{said['url']}/_sandbox/health")).is_success
                assert (await client.get(said["jwks_url"])).json()["keys"][0]["crv"] == "Ed25519"
                answer = await client.post(
                    f"{said['url']}/fal-ai/flux",
                    json={"prompt": "x"},
                    headers={"Authorization": "Key k"},
                )
                assert answer.json()["status"] == "IN_QUEUE"
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not (tmp_path / "sandbox.json").exists()
