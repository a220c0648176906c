"""The command `velro` as another process, beside a test that goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

VELRO = str(Path(sys.executable).parent / "velro")


async def velro(env: dict[str, str], *words: str) -> tuple[int, str]:
    """Its exit code, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        VELRO,
        *words,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(40):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()
