"""Damage each read model in every way, and find exactly that."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shared.archive.archive import Archive
from shared.archive.settings import ArchiveSettings
from shared.contracts.facts import OutputFailure
from shared.contracts.generation_events import GenerationFailed, StorageFailed, SubmissionStarted
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaLost, MigrationAttemptFailed
from shared.event_log.port import LogMismatch
from shared.media.settings import MediaSettings
from shared.messaging.jetstream import jetstream_of
from shared.object_store.s3 import s3_object_store
from storage_svc.application.archiving import Archiver
from tests.object_stores import settings_for
from tests.verifying import Three, now, said, three
from velro.verify import rows, stretch
from velro.verify.errors import NothingKnown, NotReadable
from velro.verify.repairing import repairing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
async def world(
    nats_url: str, stream: str, subjects: Subjects, database: str, bucket: S3Address
) -> AsyncGenerator[Three]:
    """Four generations, one of every sort, in three places that agree."""
    async with three(
        nats_url=nats_url, stream=stream, subjects=subjects, database=database, bucket=bucket
    ) as world:
        await world.stored("at-once", outputs=2)
        await world.stored("migrated", outputs=2, at_once=False)
        await world.requested("begun")
        await world.say("begun", SubmissionStarted(attempt=1))
        await world.requested("waiting")
        await world.say(
            "waiting",
            world.completion("waiting", [world.object_of("waiting", 0)], at_once=False),
            StorageFailed(
                failures=(OutputFailure(index=0, reason=ReasonCode.BUCKET_FULL, detail="full"),)
            ),
        )
        await world.projected()
        yield world


async def test_what_agrees_has_no_findings(world: Three) -> None:
    report = await world.verified()
    assert said(report) == []
    assert report.exit_code == 0
    assert report.generations == 4
    assert report.objects == 4
    assert report.events == await world.log.last_position()


async def test_a_row_that_was_deleted_is_missing(world: Three) -> None:
    await world.sql("generation", "delete from generations where id = 'at-once'")
    await world.sql("storage", "delete from backlog where generation_id = 'migrated'")
    report = await world.verified()
    assert said(report) == [
        ("row_missing", "generation", "at-once"),
        ("row_missing", "storage", "migrated"),
    ]
    assert report.exit_code == 1


async def test_one_output_of_two_that_is_gone_from_the_backlog_is_found(world: Three) -> None:
    await world.sql(
        "storage", "delete from backlog where generation_id = 'migrated' and output_index = 1"
    )
    report = await world.verified()
    assert said(report) == [("row_differs", "storage", "migrated")]
    assert "2 rows are expected, 1 are there" in report.findings[0].detail


@pytest.mark.parametrize(
    ("read_model", "statement", "column"),
    [
        ("generation", "update generations set position = position + 1", "position"),
        ("generation", "update generations set user_id = 'bob'", "user_id"),
        ("generation", "update generations set provider = 'other'", "provider"),
        ("generation", "update generations set model = 'other'", "model"),
        ("generation", """update generations set input = '{"prompt": "c"}'""", "input"),
        ("generation", """update generations set metadata = '{"p": 2}'""", "metadata"),
        ("generation", "update generations set attempts = 7", "attempts"),
        ("generation", "update generations set request_id = 'other'", "request_id"),
        (
            "generation",
            "update generations set created_at = created_at - interval '1 microsecond'",
            "created_at",
        ),
        ("generation", "update generations set updated_at = now()", "updated_at"),
        ("generation", "update generations set outputs = '[]'", "outputs"),
        (
            "generation",
            (
                "update generations set storage_state = 'partial', migration_completed_at = null,"
                " total_migrated_size = null, migration_file_count = null"
            ),
            "storage_state",
        ),
        ("generation", "update generations set total_migrated_size = 1", "total_migrated_size"),
        ("storage", "update backlog set source_url = 'https://other.example/'", "source_url"),
        ("storage", "update backlog set source_host = 'other.example'", "source_host"),
        ("storage", "update backlog set dies_at = dies_at + interval '1 second'", "dies_at"),
        ("storage", "update backlog set attempts = 9", "attempts"),
        ("storage", "update backlog set object_key = 'elsewhere'", "object_key"),
        ("storage", "update backlog set sha256 = repeat('0', 64)", "sha256"),
        ("storage", "update backlog set size_bytes = 1", "size_bytes"),
        ("storage", "update backlog set took_s = 0.25", "took_s"),
    ],
)
async def test_a_row_whose_column_was_changed_differs_and_the_column_is_named(
    world: Three, read_model: str, statement: str, column: str
) -> None:
    key = "id" if read_model == "generation" else "generation_id"
    await world.sql(read_model, f"{statement} where {key} = 'migrated'")
    report = await world.verified()
    assert said(report) == [("row_differs", read_model, "migrated")]
    assert f"{column} is " in report.findings[0].detail


async def test_json_that_is_only_written_otherwise_is_the_same(world: Three) -> None:
    await world.sql(
        "generation",
        "update generations set outputs = replace(outputs::text, ',', ' , ')::json"
        " where id = 'migrated'",
    )
    assert said(await world.verified()) == []


async def test_who_works_on_an_output_is_no_difference(world: Three) -> None:
    await world.sql(
        "storage",
        "update backlog set lease_owner = 'me', lease_until = now() where state = 'pending'",
    )
    assert said(await world.verified()) == []


async def test_a_row_that_no_event_made_is_unknown(world: Three) -> None:
    await world.sql(
        "generation",
        "insert into generations (id, position, user_id, provider, model, status, attempts,"
        " created_at, updated_at, outputs, storage_state)"
        " values ('invented', 1, 'ann', 'fal', 'm', 'requested', 0, now(), now(), '[]', 'none')",
    )
    report = await world.verified()
    assert said(report) == [("row_unknown", "generation", "invented")]


async def test_events_after_the_rows_are_no_difference(world: Three) -> None:
    await world.stored("later", put=True)
    await world.say(
        "waiting",
        MigrationAttemptFailed(
            index=0, attempt=1, reason=ReasonCode.TOO_SLOW, detail="", retry_at=now()
        ),
    )
    assert said(await world.verified()) == []


async def test_rows_of_two_moments_are_each_compared_at_their_own(world: Three) -> None:
    await world.say(
        "waiting", MediaLost(index=0, attempt=1, reason=ReasonCode.SOURCE_EXPIRED, detail="gone")
    )
    before = await world.log.last_position()
    await world.projected()
    report = await world.verified()
    assert said(report) == []
    assert report.positions == {"generation": before, "storage": before}


async def test_a_parked_generation_is_told_from_a_wrong_one(world: Three) -> None:
    await world.nats.request(world.subjects.generation("begun"), b"not an event", timeout=5)
    await world.say("begun", SubmissionStarted(attempt=2))
    await world.projected()
    report = await world.verified()
    assert said(report) == [("parked", "generation", "begun"), ("parked", "storage", "begun")]
    assert "2 events are put aside" in report.findings[0].detail


async def test_a_wrong_row_is_found_behind_parked_events_too(world: Three) -> None:
    envelope = json.dumps({"specversion": "1.0"}).encode()
    await world.nats.request(world.subjects.generation("begun"), envelope, timeout=5)
    await world.projected()
    await world.sql("generation", "update generations set attempts = 5 where id = 'begun'")
    report = await world.verified()
    assert said(report) == [
        ("parked", "generation", "begun"),
        ("parked", "storage", "begun"),
        ("row_differs", "generation", "begun"),
    ]


async def test_an_event_that_cannot_be_read_any_more_is_found(world: Three) -> None:
    """The read models have it behind them, and say nothing of it."""
    await world.nats.request(world.subjects.storage("at-once"), b"{}", timeout=5)
    await world.projected()
    for read_model in ("generation", "storage"):
        await world.sql(read_model, "delete from parked_events")
    report = await world.verified()
    assert said(report) == [("event_unusable", "at-once")]
    assert report.findings[0].position == await world.log.last_position()


async def test_a_log_that_ends_before_the_rows_is_not_compared(world: Three) -> None:
    await world.sql("generation", "update projection_checkpoint set position = 1000000")
    with pytest.raises(LogMismatch, match="ends at position"):
        await world.verified()


async def test_tables_that_are_not_there_are_not_made(world: Three) -> None:
    await world.sql("generation", 'alter schema "generation" rename to "elsewhere"')
    with pytest.raises(NotReadable, match="velro replay generation"):
        await world.verified()


async def test_only_some_generations_are_compared_where_only_these_are_asked_for(
    world: Three,
) -> None:
    await world.sql("generation", "update generations set attempts = 5")
    report = await world.verified(only=("waiting", "at-once"))
    assert said(report) == [
        ("row_differs", "generation", "at-once"),
        ("row_differs", "generation", "waiting"),
    ]
    assert report.generations == 2
    with pytest.raises(NothingKnown, match="knows nobody"):
        await world.verified(only=("waiting", "nobody"))


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_log_that_is_cut_up_among_processes_comes_to_the_same(
    world: Three, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    """Every cut goes through some generation's history."""
    monkeypatch.setattr(rows, "_WORTH_A_PROCESS", 1)
    if damaged:
        await world.sql("generation", "update generations set attempts = 9 where id <> 'begun'")
        await world.sql("storage", "delete from backlog where generation_id = 'migrated'")
    report = await world.verified(processes=3)
    assert report.generations == 4
    assert report.events == await world.log.last_position()
    assert said(report) == (
        [
            ("row_differs", "generation", "at-once"),
            ("row_differs", "generation", "migrated"),
            ("row_differs", "generation", "waiting"),
            ("row_missing", "storage", "migrated"),
        ]
        if damaged
        else []
    )


async def test_what_was_given_up_on_and_completed_after_all_agrees(
    world: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_WORTH_A_PROCESS", 1)
    given_up = GenerationFailed(code="late", detail="", retryable=True, given_up=True)
    await world.requested("late")
    await world.say("late", SubmissionStarted(attempt=1), given_up)
    await world.projected()
    assert said(await world.verified(processes=3)) == []
    completion = world.completion("late", [world.object_of("late", 0)], at_once=False)
    await world.say("late", completion)
    await world.projected()
    assert said(await world.verified(processes=3)) == []


async def test_what_waits_too_long_is_settled_from_disk(
    world: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretch, "_MOST_WAITING", 0)
    monkeypatch.setattr(stretch, "_QUIET_BATCHES", 0)
    await world.sql("storage", "delete from backlog where generation_id = 'waiting'")
    report = await world.verified()
    assert said(report) == [("row_missing", "storage", "waiting")]
    assert report.generations == 4


async def test_a_log_whose_beginning_is_only_in_the_archive_is_read_from_there(
    world: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = world.bucket
    for name, value in {
        "NATS_URL": world.places.log.nats_url,
        "STREAM": world.places.log.stream,
        "SUBJECT_ROOT": world.subjects.root,
        "S3_ENDPOINT_URL": address.endpoint_url,
        "S3_ACCESS_KEY": address.access_key,
        "S3_SECRET_KEY": address.secret_key,
        "S3_BUCKET": address.bucket,
    }.items():
        monkeypatch.setenv(f"VELRO_{name}", value)
    world.places = replace(
        world.places, not_media=(*world.places.not_media, f"{ArchiveSettings().prefix}/")
    )
    archive = ArchiveSettings()
    async with s3_object_store(settings_for(address)) as store:
        archiver = Archiver(
            world.log, Archive(store, world.places.log.stream, archive), archive, clock=now
        )
        async with aclosing(archiver.catch_up(everything=True)) as written:
            assert [entry async for entry in written]
    end = await world.log.last_position()
    await jetstream_of(world.nats).purge_stream(world.places.log.stream, seq=end)
    assert said(await world.verified()) == []
    await world.sql("generation", "update generations set attempts = 9 where id = 'at-once'")
    wrong = [("row_differs", "generation", "at-once")]
    assert said(await world.verified()) == wrong
    assert said(await world.verified(only=("at-once", "waiting"))) == wrong
    # In a long log the last events, which are read in any case, are not all there are.
    monkeypatch.setattr("shared.projection.rebuild_only._TAIL_EVENTS", 1)
    report = await world.verified()
    async with repairing(world.places, MediaSettings(), lambda _: False) as mending:
        assert [each.done async for each in mending.repair(report.findings)] == [True]
    assert said(await world.verified()) == []


async def test_every_row_wrong_at_once_is_every_row_found(world: Three) -> None:
    await world.sql("generation", "delete from generations")
    await world.sql("storage", "delete from backlog")
    report = await world.verified()
    assert report.counts.total() == 6
    assert {kind.value for kind in report.counts} == {"row_missing"}
