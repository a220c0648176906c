"""What the backlog hands out, in which order and to whom, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from shared.contracts.reasons import ReasonCode
from shared.postgres.connecting import connect, open_pool
from shared.postgres.queries import Queries
from storage_svc.adapters.postgres_backlog import PostgresBacklog
from storage_svc.adapters.postgres_report import PostgresReport
from storage_svc.application.backlog import BacklogUnavailable, Lease, OutputRef
from storage_svc.domain.policies import AT_RISK_FACTOR
from storage_svc.read_model.entries import Entry, EntryState
from storage_svc.read_model.model import HERE, NAME, BacklogModel
from storage_svc.read_model.rows import Backlog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Connection, Pool, Record

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Table:
    pool: Pool[Record]
    connection: Connection[Record]
    model: BacklogModel
    backlog: PostgresBacklog

    async def add(
        self,
        generation_id: str,
        *deaths: datetime,
        user: str = "ann",
        host: str = "media.example",
        position: int = 1,
    ) -> None:
        entries = tuple(
            Entry(
                output_index=index,
                source_url=f"https://{host}/{generation_id}/{index}",
                dies_at=dies_at,
                turn=None,
                state=EntryState.PENDING,
                attempts=0,
                next_attempt_at=NOON,
            )
            for index, dies_at in enumerate(deaths)
        )
        await self.save(generation_id, Backlog(user, "sandbox", position, entries))

    async def save(self, generation_id: str, row: Backlog) -> None:
        async with self.connection.transaction():
            await self.model.save(self.connection, {generation_id: row})

    async def change(self, generation_id: str, **changes: Any) -> None:  # noqa: ANN401 - of any column
        row = (await self.model.load(self.connection, [generation_id]))[generation_id]
        entries = tuple(entry._replace(**changes) for entry in row.entries)
        await self.save(generation_id, row._replace(entries=entries))

    async def failed(self, generation_id: str, attempt: int, retry_at: datetime) -> None:
        await self.change(
            generation_id,
            attempts=attempt,
            next_attempt_at=retry_at,
            reason="bucket_unavailable",
            detail="refused",
            failed_at=NOON,
        )

    async def lease(
        self,
        max_rows: int,
        *,
        owner: str = "me",
        now: datetime = NOON,
        closed_hosts: tuple[str, ...] = (),
        probed_hosts: tuple[str, ...] = (),
    ) -> list[Lease]:
        return await self.backlog.lease(
            owner=owner,
            now=now,
            until=now + MINUTE,
            max_rows=max_rows,
            closed_hosts=closed_hosts,
            probed_hosts=probed_hosts,
        )

    async def order(self, max_rows: int = 100, **options: Any) -> list[str]:  # noqa: ANN401 - as lease
        return [lease.generation_id for lease in await self.lease(max_rows, **options)]


@pytest.fixture
async def table(database: str) -> AsyncGenerator[Table]:
    pool = await open_pool(database, schema=NAME, application_name="tests")
    connection = await connect(database, schema=NAME, application_name="tests")
    model = BacklogModel()
    await connection.execute(f"create schema {NAME}")
    await connection.execute(model.schema_sql)
    yield Table(pool, connection, model, PostgresBacklog(pool))
    await connection.close()
    await pool.close()


async def test_the_soonest_death_comes_first(table: Table) -> None:
    await table.add("week", NOON + 168 * HOUR)
    await table.add("minutes", NOON + 10 * MINUTE)
    await table.add("hour", NOON + HOUR)
    assert await table.order() == ["minutes", "hour", "week"]


async def test_oldest_deadlines_are_not_starved_by_newer_work(table: Table) -> None:
    for number in range(20):
        await table.add(f"new-{number}", NOON + (2 + number) * HOUR, position=2)
    await table.add("old", NOON + HOUR)
    assert (await table.order(max_rows=1)) == ["old"]


async def test_an_outcome_being_written_does_not_hold_its_siblings_turn_back(table: Table) -> None:
    await table.add("many", NOON + HOUR, NOON + HOUR)
    await table.add("later", NOON + 2 * HOUR)
    row = (await table.model.load(table.connection, ["many"]))["many"]
    failed = row.entries[0]._replace(attempts=1, reason="internal", detail="x", failed_at=NOON)
    async with table.connection.transaction():
        written = row._replace(entries=(failed, row.entries[1]))
        await table.model.save(table.connection, {"many": written})
        leased = await table.lease(max_rows=1)
    assert [(lease.generation_id, lease.output_index) for lease in leased] == [("many", 1)]


async def test_users_take_turns_where_deadlines_are_equal(table: Table) -> None:
    for number in range(5):
        await table.add(f"ann-{number}", NOON + HOUR, user="ann", position=number)
    await table.add("bob-0", NOON + HOUR, user="bob", position=90)
    await table.add("bob-1", NOON + HOUR, user="bob", position=91)
    order = await table.order()
    assert sorted(order[:2]) == ["ann-0", "bob-0"]
    assert sorted(order[2:4]) == ["ann-1", "bob-1"]
    assert order[4:] == ["ann-2", "ann-3", "ann-4"]


async def test_turns_are_the_same_when_the_log_is_projected_in_other_batches(table: Table) -> None:
    rows = {
        f"g{number}": Backlog(
            "ann",
            "sandbox",
            number,
            tuple(
                Entry(index, "https://a/", NOON + HOUR, None, EntryState.PENDING, 0, NOON)
                for index in range(2)
            ),
        )
        for number in range(6)
    }

    async def turns() -> list[tuple[str, int, int]]:
        found = await table.connection.fetch(
            "select generation_id, output_index, turn from backlog order by turn"
        )
        return [(row["generation_id"], row["output_index"], row["turn"]) for row in found]

    await table.model.save(table.connection, rows)
    at_once = await turns()
    await table.connection.execute("truncate backlog")
    for name, row in rows.items():
        await table.model.save(table.connection, {name: row})
    assert await turns() == at_once
    assert [turn for _, _, turn in at_once] == list(range(12))


async def test_what_is_leased_is_not_leased_again_until_the_lease_runs_out(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    assert await table.order() == ["one"]
    assert await table.order(owner="other", now=NOON + 59 * timedelta(seconds=1)) == []
    assert await table.order(owner="other", now=NOON + MINUTE) == ["one"]


async def test_leases_that_are_renewed_are_held_and_lost_ones_are_named(table: Table) -> None:
    await table.add("mine", NOON + HOUR)
    await table.add("theirs", NOON + 2 * HOUR)
    refs = [lease.ref for lease in await table.lease(2)]
    await table.lease(1, owner="other", now=NOON + MINUTE)  # takes over "mine"
    held = await table.backlog.renew(refs, owner="me", until=NOON + 3 * MINUTE)
    assert held == {OutputRef("theirs", 0)}
    assert await table.order(now=NOON + 150 * timedelta(seconds=1)) == ["mine"]


async def test_what_is_given_back_can_be_taken_at_once(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    refs = [lease.ref for lease in await table.lease(1)]
    await table.backlog.give_back(refs, owner="somebody else")
    assert await table.order(owner="other") == []
    await table.backlog.give_back(refs, owner="me")
    assert await table.order(owner="other") == ["one"]


async def test_a_failed_attempt_ends_the_lease_and_waits_for_its_time(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    await table.lease(1)
    await table.failed("one", attempt=1, retry_at=NOON + MINUTE)
    assert await table.order(now=NOON + 30 * timedelta(seconds=1)) == []
    assert await table.backlog.next_due() == NOON + MINUTE
    (lease,) = await table.lease(1, now=NOON + MINUTE)
    assert lease.attempts == 1


async def test_what_the_projection_writes_about_one_output_leaves_the_lease_of_another(
    table: Table,
) -> None:
    await table.add("two", NOON + HOUR, NOON + HOUR)
    await table.lease(2)
    row = (await table.model.load(table.connection, ["two"]))["two"]
    first, second = row.entries
    first = first._replace(attempts=1, next_attempt_at=NOON + MINUTE, reason="internal")
    await table.save("two", row._replace(entries=(first, second)))
    leases = await table.connection.fetch(
        "select output_index from backlog where lease_owner = 'me'"
    )
    assert [row["output_index"] for row in leases] == [1]


async def test_a_repeated_write_changes_nothing(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    await table.lease(1)
    before = await table.connection.fetch("select * from backlog")
    await table.change("one")
    assert await table.connection.fetch("select * from backlog") == before


async def test_the_dead_come_after_the_living_the_youngest_death_first(table: Table) -> None:
    await table.add("dead for long", NOON - 2 * HOUR)
    await table.add("just dead", NOON - MINUTE)
    await table.add("alive", NOON + HOUR)
    assert await table.order() == ["alive", "just dead", "dead for long"]


async def test_nothing_is_taken_from_a_host_that_is_left_alone(table: Table) -> None:
    await table.add("down", NOON + HOUR, host="down.example")
    await table.add("up", NOON + 2 * HOUR, host="up.example")
    assert await table.order(closed_hosts=("down.example",)) == ["up"]
    assert await table.order() == ["down"]


async def test_a_host_is_probed_with_what_has_not_failed_by_itself(table: Table) -> None:
    for number in range(3):
        await table.add(f"bad-{number}", NOON + (1 + number) * MINUTE, host="down.example")
        await table.failed(f"bad-{number}", attempt=1 + number, retry_at=NOON)
    await table.add("dead", NOON - HOUR, host="down.example")
    await table.add("good", NOON + 168 * HOUR, host="down.example")
    await table.add("up", NOON + 2 * HOUR, host="up.example")
    down = ("down.example",)
    assert await table.order(probed_hosts=down) == ["good", "up"]
    assert await table.order(probed_hosts=down) == ["bad-0"], "where nothing better is there"
    assert await table.order() == ["bad-1", "bad-2", "dead"]


async def test_probes_are_no_more_than_what_may_be_taken(table: Table) -> None:
    for name in ("a", "b", "c"):
        await table.add(name, NOON + HOUR, host=f"{name}.example")
    hosts = ("a.example", "b.example", "nothing.waits.example")
    assert len(await table.order(max_rows=1, probed_hosts=hosts)) == 1
    assert len(await table.order(probed_hosts=hosts)) == 2, (
        "the other probe, and the host that is up"
    )


async def test_what_failed_because_of_the_bucket_comes_back_when_the_bucket_does(
    table: Table,
) -> None:
    for number in range(5):
        await table.add(f"g{number}", NOON + (5 - number) * HOUR)
        await table.failed(f"g{number}", attempt=1, retry_at=NOON + 10 * MINUTE)
    assert await table.order() == []
    released = await table.backlog.release(
        [ReasonCode.BUCKET_FULL, ReasonCode.BUCKET_UNAVAILABLE],
        failed_before=NOON + MINUTE,
        max_rows=2,
    )
    assert released == 2
    assert await table.order() == ["g4", "g3"]


async def test_a_person_may_take_what_waits(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    await table.failed("one", attempt=1, retry_at=NOON + 10 * MINUTE)
    leases = await table.backlog.lease_generation("one", owner="ann", now=NOON, until=NOON + MINUTE)
    assert [lease.ref for lease in leases] == [OutputRef("one", 0)]


async def test_what_awaits_a_link_is_left_alone_until_its_time_is_over(table: Table) -> None:
    await table.add("awaiting", NOON + HOUR)
    await table.failed("awaiting", attempt=1, retry_at=NOON + MINUTE)
    await table.change(
        "awaiting", state=EntryState.AWAITING_LINK, next_attempt_at=NOON + MINUTE, asked=1
    )
    assert await table.order(now=NOON) == []
    assert await table.backlog.next_due() == NOON + MINUTE
    assert await table.order(now=NOON + MINUTE) == ["awaiting"]
    summary = await PostgresReport(table.pool).summary(NOON)
    assert (summary.pending, summary.awaiting_link) == (0, 1)


async def test_a_new_link_stands_where_its_own_death_puts_it(table: Table) -> None:
    await table.add("renewed", NOON - MINUTE)
    await table.add("soon", NOON + MINUTE)
    await table.add("late", NOON + 3 * HOUR)
    await table.change(
        "renewed",
        attempts=1,
        dies_at=NOON + HOUR,
        first_dies_at=NOON - MINUTE,
        source_url="https://new.example/0",
        link=1,
        asked=1,
    )
    leases = await table.lease(10)
    assert [lease.generation_id for lease in leases] == ["soon", "renewed", "late"]
    assert (leases[1].source_host, leases[1].dies_at) == ("new.example", NOON + HOUR)


async def test_turns_among_users_do_not_change_when_a_link_is_renewed(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    await table.change(
        "one", attempts=1, dies_at=NOON + 2 * HOUR, first_dies_at=NOON + HOUR, link=1
    )
    await table.add("two", NOON + HOUR)
    turns = await table.connection.fetch("select turn from backlog order by generation_id")
    assert [row["turn"] for row in turns] == [0, 1], "as if both had been written at once"


async def test_two_processes_at_once_never_lease_the_same_output(table: Table) -> None:
    for number in range(60):
        await table.add(f"g{number}", NOON + HOUR + number * MINUTE)

    async def drain(owner: str) -> list[OutputRef]:
        taken: list[OutputRef] = []
        while leases := await table.lease(3, owner=owner):
            taken += [lease.ref for lease in leases]
        return taken

    shares = await asyncio.gather(*(drain(f"owner-{number}") for number in range(6)))
    everything = [ref for share in shares for ref in share]
    assert len(everything) == len(set(everything)) == 60


async def test_the_database_keeps_its_promises(table: Table) -> None:
    await table.add("one", NOON + HOUR)
    for constraint, change in {
        "stored_has_object": "state = 'stored', next_attempt_at = null, settled_at = now(), "
        "ready = false",
        "pending_has_next_attempt": "next_attempt_at = null",
        "state_is_known": "state = 'dropped', next_attempt_at = null, settled_at = now(), "
        "ready = false",
        "lost_has_reason": "state = 'lost', next_attempt_at = null, settled_at = now(), "
        "ready = false",
        "lease_is_whole": "lease_owner = 'me'",
        "awaited_was_asked_for": "state = 'awaiting_link'",
        "rejected_is_settled": "rejected = 'a page'",
    }.items():
        with pytest.raises(asyncpg.CheckViolationError, match=constraint):
            await table.connection.execute(f"update backlog set {change}")  # noqa: S608 - literals above


async def test_without_tables_there_is_no_backlog_yet(database: str) -> None:
    pool = await open_pool(database, schema=NAME, application_name="tests")
    with pytest.raises(BacklogUnavailable):
        await PostgresBacklog(pool).next_due()
    with pytest.raises(BacklogUnavailable):
        await PostgresReport(pool).summary(NOON)
    await pool.close()


async def test_the_report_counts_and_lists_what_is_at_risk(table: Table) -> None:
    await table.add("overdue", NOON - MINUTE)
    await table.add("at risk", NOON + timedelta(seconds=10))
    await table.add("safe", NOON + HOUR)
    await table.failed("safe", attempt=1, retry_at=NOON + MINUTE)
    await table.add("stored", NOON + HOUR)
    await table.change(
        "stored",
        state=EntryState.STORED,
        next_attempt_at=None,
        bucket="media",
        object_key="k",
        size_bytes=7,
        sha256="ab",
        took_s=4.0,
        settled_at=NOON,
    )
    await table.lease(1)
    summary = await PostgresReport(table.pool).summary(NOON)
    assert (summary.pending, summary.at_risk, summary.overdue, summary.running) == (3, 1, 1, 1)
    assert (summary.stored, summary.stored_bytes, summary.lost) == (1, 7, 0)
    assert summary.soonest_death == NOON - MINUTE
    assert summary.p95_copy_s == 4.0
    assert summary.reasons == {"not tried yet": 2, "bucket_unavailable": 1}
    at_risk_until = NOON + timedelta(seconds=AT_RISK_FACTOR * summary.p95_copy_s)
    waiting = await PostgresReport(table.pool).waiting(NOON, max_rows=10, dies_before=at_risk_until)
    assert [output.ref.generation_id for output in waiting] == ["at risk"]
    everything = await PostgresReport(table.pool).waiting(NOON, max_rows=10)
    assert [output.ref.generation_id for output in everything] == ["overdue", "at risk", "safe"]


@pytest.mark.parametrize("query", ["lease_living", "lease_dead", "promote", "release", "next_due"])
async def test_what_workers_ask_all_the_time_reads_no_more_than_it_takes(
    table: Table, query: str
) -> None:
    """With 20,000 rows that wait and few that are due, a plan that scans is a plan that fails."""
    await table.connection.execute(
        """
        insert into backlog (
            generation_id, output_index, position, user_id, provider, source_url, source_host,
            dies_at, turn, state, attempts, next_attempt_at, reason, failed_at, ready
        )
        select 'g' || n, 0, n, 'u' || n % 50, 'sandbox', 'https://a/', 'a',
            $1::timestamptz + make_interval(secs => n - 10000), 0, 'pending', 1,
            $1::timestamptz + make_interval(secs => n), 'bucket_unavailable',
            $1::timestamptz, n % 3 = 0
        from generate_series(1, 20000) as n
        """,
        NOON,
    )
    await table.connection.execute("analyze backlog")
    # In the order in which the query names them.
    arguments: dict[str, list[object]] = {
        "lease_living": [NOON, [], 10, "me", NOON + MINUTE],
        "lease_dead": [NOON, [], 10, "me", NOON + MINUTE],
        "promote": [NOON + MINUTE, 10],
        "release": ["bucket_unavailable", NOON + MINUTE, 10],
        "next_due": [],
    }
    sql = Queries(HERE / "lease.sql").sql(query)
    plan = json.loads(
        await table.connection.fetchval(
            f"explain (analyze, format json, costs off) {sql}", *arguments[query]
        )
    )
    scans = list(_scans(plan[0]["Plan"]))
    assert not [scan for scan in scans if scan["Node Type"] == "Seq Scan"], scans
    read = sum(
        scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) * scan["Actual Loops"]
        for scan in scans
    )
    assert read <= 100, scans


def _scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [scan for child in plan.get("Plans", []) for scan in _scans(child)]
    return ([plan] if "Scan" in plan["Node Type"] else []) + inner
