"""An outage of two hours, 50,000 outputs, links of many lifetimes: who is lost in which order."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.postgres.connecting import connect, open_pool
from storage_svc.adapters.postgres_backlog import PostgresBacklog
from storage_svc.read_model.model import NAME, BacklogModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest


BACK_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OUTAGE = timedelta(hours=2)
ROWS = 50_000
STEP = timedelta(seconds=2)
A_STEP = 50  # 25 copies a second
# Lifetimes of providers' links, and how many in a hundred outputs have them.
LIFETIMES = {
    timedelta(minutes=10): 5,
    timedelta(hours=1): 45,
    timedelta(hours=9): 20,
    timedelta(days=7): 30,
}
# What dies after this moment is in no danger in any order.
ALL_LIVE_UNTIL = BACK_AT + timedelta(hours=6)


@dataclass(frozen=True)
class Waiting:
    name: str
    came_at: datetime
    dies_at: datetime


def outputs_of_the_outage() -> list[Waiting]:
    """Whatever still lives when the bucket is back; the rest no order could have saved."""
    chance = random.Random(7)  # noqa: S311 - the same outage every time
    kinds = list(LIFETIMES)
    found: list[Waiting] = []
    while len(found) < ROWS:
        came_at = BACK_AT - OUTAGE * chance.random()
        dies_at = came_at + chance.choices(kinds, list(LIFETIMES.values()))[0]
        if dies_at > BACK_AT:
            found.append(Waiting(f"g{len(found)}", came_at, dies_at))
    return found


def lost_first_come_first_served(outputs: Sequence[Waiting]) -> set[str]:
    """The old order, at the same speed; finding a link dead costs it nothing."""
    queue = deque(sorted(outputs, key=lambda output: output.came_at))
    lost: set[str] = set()
    now = BACK_AT
    while queue:
        served = 0
        while queue and served < A_STEP:
            output = queue.popleft()
            if output.dies_at <= now:
                lost.add(output.name)
            else:
                served += 1
        now += STEP
    return lost


async def test_nothing_is_lost_that_first_come_order_would_have_lost(
    database: str,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = outputs_of_the_outage()
    connection = await connect(database, schema=NAME, application_name="tests")
    await connection.execute(f"create schema {NAME}")
    await connection.execute(BacklogModel().schema_sql)
    await connection.copy_records_to_table(
        "backlog",
        columns=[
            "generation_id", "output_index", "position", "user_id", "provider", "source_url",
            "source_host", "dies_at", "turn", "state", "attempts", "next_attempt_at", "ready",
        ],
        records=[
            (
                output.name, 0, 1, "ann", "sandbox", "https://a/", "a", output.dies_at, 0,
                "pending", 0, output.came_at, True,
            )
            for output in outputs
        ],
    )  # fmt: skip
    await connection.execute("analyze backlog")
    pool = await open_pool(database, schema=NAME, application_name="tests")
    backlog = PostgresBacklog(pool)

    stored: set[str] = set()
    now, soonest = BACK_AT, BACK_AT
    while soonest < ALL_LIVE_UNTIL:
        leases = await backlog.lease(
            owner="me", now=now, until=now + timedelta(minutes=1), max_rows=A_STEP
        )
        stored |= {lease.generation_id for lease in leases if lease.dies_at > now}
        soonest = leases[0].dies_at
        await connection.execute("delete from backlog where lease_owner = 'me'")
        now += STEP
    await pool.close()
    await connection.close()

    lost = {output.name for output in outputs if output.dies_at < ALL_LIVE_UNTIL} - stored
    lost_before = lost_first_come_first_served(outputs)
    numbers = f"of {ROWS:,} outputs: {len(lost):,} lost by deadline, {len(lost_before):,} before"
    record_property("outage", numbers)
    with capsys.disabled():  # the numbers are the point
        print(f"\n{numbers}")  # noqa: T201 - as above
    assert len(lost_before) > 1000, "the outage is one in which order matters"
    assert not lost
