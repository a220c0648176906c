"""`velro verify` on a million aggregates, without the bucket: is its memory bounded?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure
from benchmarks.verify import Memory, agreeing, verified

if TYPE_CHECKING:
    from pathlib import Path

# 1.9 aggregates and 4.6 events a generation.
_EVENTS: Final = int(os.environ.get("VELRO_BENCH_VERIFY_MILLION_EVENTS", "2500000"))


async def measure(room: Path) -> list[Figure]:
    """Aggregates a second, and memory of the largest process."""
    async with agreeing(room, events=_EVENTS, with_bucket=False) as agreed:
        memory = Memory()
        report = await verified(agreed.places, memory)
    return [
        Figure(
            "verify_million",
            "aggregates/s",
            agreed.aggregates / report.took_s,
            {"aggregates": agreed.aggregates, "generations": report.generations},
        ),
        Figure("verify_million_memory", "MiB", memory.largest_mib, {}),
    ]
