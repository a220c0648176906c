"""What readers get out of the generation read model, and what its table refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generation_svc.read_model.model import HERE, NAME, GenerationModel
from generation_svc.read_model.queries import QUERIES, GenerationQueries
from generation_svc.read_model.rows import GenerationRow, Status, StorageState
from shared.contracts.envelope import Context, Recorded, seal
from shared.contracts.generation_events import GenerationRequested
from shared.postgres.connecting import connect, open_pool
from shared.postgres.queries import Queries
from shared.projection.tables import ensure
from tests.generation_events import (
    CANCELLED,
    DIES_AT,
    FAILED,
    NOON,
    REQUESTED,
    STARTED,
    SUBMITTED,
    attempt_failed,
    completed,
    media_lost,
    media_stored,
    migrated,
    storage_failed,
    stored,
)
from tests.projecting import expected, table

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncpg import Connection, Record

    from shared.contracts.events import AnyEvent

MODEL = GenerationModel()
MANY = 20_000


@pytest.fixture
async def connection(database: str) -> AsyncGenerator[Connection[Record]]:
    made = await connect(database, schema=NAME, application_name="test")
    await ensure(made, NAME, MODEL)
    yield made
    await made.close()


@pytest.fixture
async def queries(
    database: str, connection: Connection[Record]
) -> AsyncGenerator[GenerationQueries]:
    assert not connection.is_closed()  # the tables are there
    pool = await open_pool(database, schema=NAME, application_name="test", max_size=2)
    yield GenerationQueries(pool)
    await pool.close()


def recorded(event: AnyEvent, position: int, generation_id: str) -> Recorded:
    at = NOON + timedelta(seconds=position)
    return Recorded(
        position,
        seal(event, generation_id=generation_id, at=at, context=Context(source="test")),
    )


async def project(
    connection: Connection[Record], generation_id: str, *events: AnyEvent, at: int = 1
) -> GenerationRow:
    """Fold and save event by event, loading the row each time."""
    row: GenerationRow | None = None
    for position, event in enumerate(events, at):
        loaded = (await MODEL.load(connection, [generation_id])).get(generation_id)
        row = MODEL.evolve(loaded, recorded(event, position, generation_id))
        if row is not None and row is not loaded:
            await MODEL.save(connection, {generation_id: row})
    assert row is not None
    return row


async def test_a_generation_is_seen_with_its_outputs_wherever_they_are(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    await project(
        connection, "g", REQUESTED, STARTED, SUBMITTED, completed("link", "bucket", "link"),
        storage_failed(0, 2), media_lost(2),
    )  # fmt: skip
    view = await queries.get("g")
    assert view is not None
    assert (view.status, view.storage_state) == (Status.COMPLETED, StorageState.LOST)
    assert view.input == {"prompt": "a\0b"}
    assert view.metadata == {"p": 1}
    assert [output.stored for output in view.outputs] == [None, stored(1), None]
    assert view.outputs[0].source_url == "https://media.example/0.png"
    assert view.outputs[0].expires_at == DIES_AT
    assert view.outputs[0].failure_reason == "bucket_unavailable"
    assert view.outputs[2].lost_reason == "source_expired"
    assert view.earliest_link_death == DIES_AT
    assert view.storage_retry_needed
    assert not view.storage_successful
    assert view.position == 6


async def test_a_failure_is_seen(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    await project(connection, "g", REQUESTED, FAILED)
    view = await queries.get("g")
    assert view is not None
    assert view.failure is not None
    assert (view.failure.code, view.failure.billed) == ("refused", True)


async def test_nobodys_generation_is_none(queries: GenerationQueries) -> None:
    assert await queries.get("g") is None


async def test_pages_go_from_new_to_old_and_leave_nothing_out(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    # Three of each moment: a page may end among equals.
    ids = [f"g{number:02}" for number in range(12)]
    for number, generation_id in enumerate(ids):
        await project(connection, generation_id, REQUESTED, at=number // 3)
    seen: list[str] = []
    cursor = None
    while True:
        page = await queries.list_page(cursor=cursor, limit=5)
        seen += [view.id for view in page.generations]
        # What comes meanwhile is newer than every cursor.
        await project(connection, f"late{len(seen)}", REQUESTED, at=1000)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)


async def test_a_list_is_narrowed_by_user_status_and_storage_state(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    bob = GenerationRequested(user_id="bob", provider="fal", model="painter", input={})
    await project(connection, "running", REQUESTED, STARTED, SUBMITTED)
    await project(connection, "cancelled", REQUESTED, CANCELLED)
    await project(connection, "stored", REQUESTED, completed("bucket"))
    await project(connection, "temporary", REQUESTED, completed("link"))
    await project(connection, "bobs", bob, completed("link"))

    async def ids(**narrowed: Any) -> set[str]:  # noqa: ANN401 - of `list_page`
        return {view.id for view in (await queries.list_page(**narrowed)).generations}

    assert await ids(status=Status.CANCELLED) == {"cancelled"}
    assert await ids(status=Status.COMPLETED, user_id="ann") == {"stored", "temporary"}
    assert await ids(storage_state=StorageState.TEMPORARY) == {"temporary", "bobs"}
    assert await ids(storage_state=StorageState.TEMPORARY, user_id="bob") == {"bobs"}
    assert await ids(user_id="bob", status=Status.RUNNING) == set()


async def test_a_page_is_never_larger_than_the_largest(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    await fill(connection, 300)
    assert len((await queries.list_page(limit=10_000)).generations) == 200
    assert len((await queries.list_page(limit=0)).generations) == 1


async def test_numbers_say_what_became_of_everything(
    connection: Connection[Record], queries: GenerationQueries
) -> None:
    await project(connection, "old", REQUESTED, completed("link"), storage_failed(0), at=-7200)
    await project(connection, "running", REQUESTED, STARTED, SUBMITTED)
    await project(connection, "failed", REQUESTED, FAILED)
    await project(connection, "stored", REQUESTED, completed("bucket"))
    history = (REQUESTED, completed("link"), storage_failed(0))
    await project(connection, "copied", *history, media_stored(0), migrated(1))
    await project(connection, "waiting", *history)
    await project(connection, "lost", *history, media_lost(0))

    stats = await queries.stats(NOON, now=DIES_AT - timedelta(minutes=30))
    assert (stats.generations, stats.completed, stats.failed, stats.unfinished) == (6, 4, 1, 1)
    assert (stats.storage_failed, stats.stored, stats.lost) == (3, 2, 1)
    assert stats.success_rate == 0.8
    assert stats.storage_failure_rate == 0.75
    assert stats.not_stored.generations == 2
    assert stats.not_stored.within_1_hour == 2
    assert stats.not_stored.next_death_at == DIES_AT
    assert stats.not_stored.oldest_completed_at == NOON - timedelta(seconds=7199)

    stats = await queries.stats(NOON + timedelta(days=1), now=DIES_AT + timedelta(seconds=1))
    assert (stats.success_rate, stats.storage_failure_rate) == (None, None)
    assert stats.not_stored.dead == 2


EVENTS = st.sampled_from(
    [
        REQUESTED, STARTED, SUBMITTED, FAILED, CANCELLED, completed("link", "link"),
        completed("bucket", "link"), completed("bucket"), storage_failed(0), storage_failed(0, 1),
        media_stored(0), media_stored(1), attempt_failed(0), media_lost(1), migrated(1),
    ]
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=st.lists(EVENTS, max_size=12))
async def test_any_history_can_be_saved_and_loaded_between_any_two_events(
    connection: Connection[Record], history: Sequence[AnyEvent]
) -> None:
    await connection.execute("truncate generations")
    in_memory: GenerationRow | None = None
    for position, event in enumerate(history, 1):
        in_memory = MODEL.evolve(in_memory, recorded(event, position, "g"))
        loaded = (await MODEL.load(connection, ["g"])).get("g")
        row = MODEL.evolve(loaded, recorded(event, position, "g"))
        if row is not None:
            await MODEL.save(connection, {"g": row})
    rows = await table(connection)
    assert set(rows) == ({"g"} if in_memory else set())
    if in_memory is not None:
        wanted = expected(in_memory)
        assert {column: rows["g"][column] for column in wanted} == wanted


@pytest.mark.parametrize(
    ("constraint", "change"),
    [
        (
            "status_is_known",
            (
                "status = 'happy', finished_at = null, storage_state = 'none',"
                " earliest_link_death = null"
            ),
        ),
        ("storage_state_is_known", "storage_state = 'attic', earliest_link_death = null"),
        ("completed_has_outputs", "storage_state = 'none', earliest_link_death = null"),
        ("failed_has_failure", "failure = '{}'"),
        ("finished_has_moment", "finished_at = null"),
        ("only_what_is_not_stored_dies", "storage_state = 'stored'"),
        ("migrated_means_all_stored", "migration_file_count = 1"),
    ],
)
async def test_the_table_refuses_what_the_code_promises_never_to_write(
    connection: Connection[Record], constraint: str, change: str
) -> None:
    await project(connection, "g", REQUESTED, completed("link"))
    with pytest.raises(asyncpg.CheckViolationError) as raised:
        await connection.execute(f"update generations set {change}")  # noqa: S608 - written above
    assert constraint in str(raised.value)


async def test_the_flags_cannot_be_written_at_all(connection: Connection[Record]) -> None:
    await project(connection, "g", REQUESTED, completed("link"))
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await connection.execute("update generations set storage_retry_needed = false")


async def fill(connection: Connection[Record], count: int) -> None:
    """As many generations as one statement makes: 1 in 100 runs, 1 in 200 is not stored."""
    await connection.execute(
        """
        insert into generations (
            id, position, user_id, provider, model, status, attempts, created_at, updated_at,
            finished_at, outputs, storage_state, earliest_link_death
        )
        select
            'g' || n, n, 'user' || n % 100, 'fal', 'painter',
            case when n % 100 = 0 then 'running' else 'completed' end, 1, at, at,
            case when n % 100 = 0 then null else at end, '[]',
            case when n % 100 = 0 then 'none' when n % 200 = 1 then 'temporary' else 'stored' end,
            case when n % 200 = 1 then at end
        from generate_series(1, $1) as n, lateral (
            select timestamptz '2026-01-01 00:00+00' + n * interval '1 second' as at
        )
        """,
        count,
    )
    await connection.execute("analyze generations")


@pytest.mark.parametrize(
    ("narrowed", "index"),
    [
        ({}, "generations_newest"),
        ({"user_id": "user7"}, "generations_of_user"),
        ({"user_id": "user7", "status": "completed"}, "generations_of_user"),
        ({"status": "running"}, "generations_by_other_status"),
        ({"status": "completed"}, "generations_newest"),
        ({"storage_state": "temporary"}, "generations_not_stored"),
        ({"storage_state": "stored"}, "generations_newest"),
    ],
)
@pytest.mark.parametrize("with_cursor", [False, True])
async def test_every_list_reads_an_index_and_sorts_nothing(
    connection: Connection[Record],
    narrowed: dict[str, str],
    index: str,
    with_cursor: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    await fill(connection, MANY)
    arguments = [
        narrowed.get("user_id"),
        narrowed.get("status"),
        narrowed.get("storage_state"),
        NOON if with_cursor else None,
        "g" if with_cursor else None,
        51,
    ]
    plan = await plan_of(connection, QUERIES.sql("list_page"), *arguments)
    assert index in used_by(plan, "Index Name")
    assert not used_by(plan, "Node Type") & {"Seq Scan", "Sort", "Incremental Sort"}


async def test_one_generation_and_a_batch_of_them_are_found_by_key(
    connection: Connection[Record],
) -> None:
    await fill(connection, MANY)
    plan = await plan_of(connection, QUERIES.sql("get"), "g7")
    assert used_by(plan, "Index Name") == {"one_row_per_generation"}
    plan = await plan_of(
        connection,
        Queries(HERE / "project.sql").sql("load"),
        [f"g{number}" for number in range(500)],
    )
    assert used_by(plan, "Index Name") == {"one_row_per_generation"}


async def test_what_is_not_stored_is_counted_without_reading_what_is(
    connection: Connection[Record],
) -> None:
    await fill(connection, MANY)
    plan = await plan_of(connection, QUERIES.sql("count_not_stored"), NOON)
    assert used_by(plan, "Index Name") == {"generations_not_stored"}


async def plan_of(connection: Connection[Record], sql: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
    return json.loads(await connection.fetchval(f"explain (format json) {sql}", *arguments))


def used_by(plan: object, what: str) -> set[str]:
    """Every value of one property anywhere in a plan."""
    if isinstance(plan, list):
        return set[str]().union(*(used_by(part, what) for part in cast("list[object]", plan)))
    if not isinstance(plan, dict):
        return set()
    properties = cast("dict[str, object]", plan)
    own = {str(properties[what])} if what in properties else set[str]()
    return own.union(*(used_by(part, what) for part in properties.values()))
