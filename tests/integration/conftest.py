"""The scene of a storage service's test: real servers, and whoever projects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.storage_scene import Scene, open_scene

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address


@dataclass(frozen=True)
class Scenery:
    """What a scene is set in."""

    nats_url: str
    subject_root: str
    stream: str
    database: str
    bucket: S3Address
    spool: Path

    def opened(self, *, projecting: bool) -> AbstractAsyncContextManager[Scene]:
        return open_scene(
            nats_url=self.nats_url,
            subject_root=self.subject_root,
            stream=self.stream,
            database=self.database,
            bucket=self.bucket,
            spool=self.spool,
            projecting=projecting,
        )


@pytest.fixture
def scenery(  # noqa: PLR0917 - pytest hands fixtures over by name
    nats_url: str,
    subject_root: str,
    stream: str,
    database: str,
    bucket: S3Address,
    tmp_path: Path,
) -> Scenery:
    return Scenery(nats_url, subject_root, stream, database, bucket, tmp_path)


@pytest.fixture
async def scene(scenery: Scenery) -> AsyncGenerator[Scene]:
    """It takes a service to fill the backlog."""
    async with scenery.opened(projecting=False) as opened:
        yield opened


@pytest.fixture
async def projecting_scene(scenery: Scenery) -> AsyncGenerator[Scene]:
    """The test itself fills the backlog."""
    async with scenery.opened(projecting=True) as opened:
        yield opened
