"""A process that copies many links at once and says how much memory it had at most, in MiB."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.media.copier import media_copier
from shared.media.copying import CopyOrder
from shared.media.settings import MediaSettings
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings


def most_resident_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


async def main() -> None:
    told = json.loads(sys.argv[1])
    media = MediaSettings.model_validate(told["media"])
    dies_at = datetime.now(UTC) + timedelta(hours=1)
    async with (
        s3_object_store(S3Settings.model_validate(told["s3"])) as store,
        media_copier(media, store) as copier,
        asyncio.TaskGroup() as group,
    ):
        await store.learn()
        copies = [
            group.create_task(
                copier.copy(CopyOrder(f"g{number}", 0, "u", "test", url, None, dies_at))
            )
            for number, url in enumerate(told["urls"])
        ]
    sizes = [copy.result().size_bytes for copy in copies]
    print(json.dumps({"sizes": sizes, "most_mib": most_resident_mib()}))  # noqa: T201 - its answer


if __name__ == "__main__":
    asyncio.run(main())
