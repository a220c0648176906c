"""Which rows become which events, and what is said of those that do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationRequested,
)
from shared.event_log.memory import MemoryLog
from shared.event_log.port import NOTHING_YET
from storage_svc.adapters.rows_seen import rows_seen
from storage_svc.adapters.terminal_import import print_import_plan
from storage_svc.application.import_rows import Found, Rejected
from storage_svc.application.importing import Imported, Importer, Wishes
from storage_svc.programs.importing import Rejects, RejectsNotKept

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

NOW = datetime(2026, 5, 4, tzinfo=UTC)
MADE = "2026-05-01T10:00:00Z"
URL = "https://v3.fal.media/files/a/b.png"


def row(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a source may hold
    return {"id": "g1", "user": "ann", "created_at": MADE, "output_urls": [URL]} | changed


async def found(*rows: dict[str, Any]) -> AsyncGenerator[Found]:
    for number, values in enumerate(rows, 1):
        yield Found(number, values)


async def imported(
    *rows: dict[str, Any], wishes: Wishes | None = None, log: MemoryLog | None = None
) -> tuple[MemoryLog, list[Rejected], Imported]:
    log = log or MemoryLog()
    rejected: list[Rejected] = []
    importer = Importer(wishes or Wishes(), now=NOW)
    done = [one async for one in importer.publish(found(*rows), {}, log, rejected.append)][-1]
    return log, rejected, done


async def events(log: MemoryLog, generation_id: str = "g1") -> list[Any]:
    history = await log.load("generation", generation_id)
    return [recorded.envelope for recorded in history.events]


async def test_a_row_becomes_a_generation_that_completed_when_it_was_made() -> None:
    log, rejected, done = await imported(row(output_urls=[URL, URL + "?2"]))
    (envelope,) = await events(log)
    assert rejected == []
    assert (done.rows, done.events) == (1, 1)
    assert envelope.time == datetime(2026, 5, 1, 10, tzinfo=UTC)
    completed = envelope.data
    assert isinstance(completed, GenerationCompleted)
    assert (completed.user_id, completed.provider, completed.model) == ("ann", "fal", "imported")
    assert [(o.index, o.source_url) for o in completed.outputs] == [(0, URL), (1, URL + "?2")]
    assert completed.outputs[0].expires_at == datetime(2026, 5, 8, 10, tzinfo=UTC)


async def test_what_the_row_says_of_its_links_goes_before_what_was_asked_for() -> None:
    log, _, _ = await imported(
        row(expires_at="2026-05-02T10:00:00Z", provider="other", model="m"),
        wishes=Wishes(lifetime=timedelta(hours=1), provider="p"),
    )
    (envelope,) = await events(log)
    assert envelope.data.outputs[0].expires_at == datetime(2026, 5, 2, 10, tzinfo=UTC)
    assert (envelope.data.provider, envelope.data.model) == ("other", "m")


async def test_metadata_of_the_owner_stays_with_the_generation_and_flags_do_not() -> None:
    log, _, _ = await imported(row(metadata='{"album": "x", "storage_retry_needed": true}'))
    requested, completed = await events(log)
    assert isinstance(requested.data, GenerationRequested)
    assert requested.data.metadata == {"album": "x"}
    assert isinstance(completed.data, GenerationCompleted)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, True),
        ({"metadata": {"storage_retry_needed": True}}, True),
        ({"metadata": {"storage_retry_needed": False, "fal_urls_temporary": True}}, True),
        ({"metadata": {"storage_retry_needed": False}}, False),
        ({"fal_urls_temporary": "false", "requires_background_migration": "0"}, False),
        ({"fal_urls_temporary": "t"}, True),
        ({"fal_urls_temporary": ""}, True),
        ({"metadata": {"fal_urls_temporary": None}}, True),
        ({"metadata": {"fal_urls_temporary": "false", "storage_retry_needed": 0}}, False),
        ({"metadata": {"fal_urls_temporary": "perhaps"}}, True),
    ],
)
async def test_rows_whose_flags_are_all_false_are_left_out(
    values: dict[str, Any], *, wanted: bool
) -> None:
    _, rejected, done = await imported(row(**values))
    assert rejected == []
    assert (done.events > 0, done.stored_already == 0) == (wanted, wanted)


async def test_rows_whose_flags_are_all_false_are_taken_when_asked_for() -> None:
    _, _, done = await imported(
        row(metadata={"storage_retry_needed": False}), wishes=Wishes(include_stored=True)
    )
    assert done.events == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"id": "with space"}, "id: it should be 1 to 64 letters, digits, - and _"),
        ({"id": None}, "id: "),
        ({"user": "a/b"}, "user: it should be 1 to 128 letters, digits and _ @ . + -"),
        ({"user": ""}, "user: it should be 1 to 128 letters"),
        ({"created_at": "yesterday"}, "created_at: 'yesterday' is no ISO 8601"),
        ({"output_urls": []}, "output_urls: there is none"),
        ({"output_urls": "ftp://a/b"}, "no http or https URL"),
        ({"output_urls": '["https://a/b"'}, "output_urls: "),
        ({"output_urls": "https:///b"}, "no http or https URL"),
        ({"output_urls": "https://a/" + "b" * 9000}, "8,192 characters"),
        ({"output_urls": 5}, "output_urls: "),
        ({"metadata": "{nonsense"}, "metadata: "),
        ({"metadata": {"deep": float("nan")}}, "metadata"),
        ({"expires_at": "2020-01-01"}, "expires_at is before created_at"),
        ({"metadata": {"much": "x" * 250_000}}, "an event takes at most"),
    ],
)
async def test_a_row_that_cannot_be_imported_is_told_with_its_reason(
    values: dict[str, Any], reason: str
) -> None:
    log, (rejected,), done = await imported(row(id="g0"), row(**values), row(id="g2"))
    assert rejected.number == 2
    assert reason in rejected.reason
    assert (done.rejected, done.events) == (1, 2)
    assert await log.last_position() == 2


async def test_a_missing_column_is_named() -> None:
    values = row()
    del values["created_at"]
    _, (rejected,), _ = await imported(values)
    assert rejected.reason == "created_at: no such column; --map created_at=THEIRS names another"


async def test_columns_of_other_names_are_found() -> None:
    values = row(owner="bob")
    del values["user"]
    log, rejected, _ = await imported(values, wishes=Wishes(columns={"user": "owner"}))
    assert rejected == []
    (envelope,) = await events(log)
    assert envelope.data.user_id == "bob"


async def test_a_repeat_writes_nothing_twice() -> None:
    log, _, _ = await imported(row(), row(id="g2", metadata={"a": 1}))
    _, rejected, done = await imported(row(), row(id="g2", metadata={"a": 1}), log=log)
    assert (done.events, done.events_there_before, rejected) == (0, 3, [])
    assert await log.last_position() == 3


async def test_a_generation_that_the_log_has_otherwise_is_rejected() -> None:
    log = MemoryLog()
    other = seal(GenerationCancelled(), generation_id="g1", at=NOW, context=Context(source="tests"))
    await log.append("generation", "g1", [other], expected=NOTHING_YET)
    _, (rejected,), done = await imported(row(), row(id="g2"), log=log)
    assert "other events of a generation with this id" in rejected.reason
    assert (rejected.number, done.events) == (1, 1)


async def test_dead_links_are_rejected_only_when_asked_for() -> None:
    old = row(created_at="2026-01-01")
    _, rejected, _ = await imported(old)
    assert rejected == []
    _, (dead,), _ = await imported(old, wishes=Wishes(skip_dead=True))
    assert "should be dead since 2026-01-08" in dead.reason


async def test_a_row_for_each_output_of_one_id_is_not_taken_for_a_repeat() -> None:
    log, (rejected,), done = await imported(row(), row(output_urls=[URL + "?2"]), row())
    assert "one row should list them all" in rejected.reason
    assert (rejected.number, done.events, done.events_there_before) == (2, 1, 1)
    assert len(await events(log)) == 1


async def test_what_was_made_in_the_future_is_rejected() -> None:
    _, (rejected,), _ = await imported(
        row(created_at=NOW + timedelta(days=2)), row(created_at=NOW + timedelta(hours=1), id="g2")
    )
    assert rejected.reason == "created_at: 2026-05-06 00:00 UTC is in the future"


async def test_the_plan_says_why_the_first_rows_cannot_be_imported() -> None:
    bad = [row(id=f"g{number}", output_urls=["ftp://a/b"]) for number in range(8)]
    plan = await Importer(Wishes(), now=NOW).plan(found(row(), *bad), {})
    assert [number for number, _ in plan.first_rejected] == [2, 3, 4, 5, 6]
    assert "'ftp://a/b' is no http or https URL" in plan.first_rejected[0][1]
    console = Console(width=80, record=True, file=StringIO())
    print_import_plan(console, plan, now=NOW)
    assert "row 2 cannot be imported: output_urls.0" in (said := console.export_text())
    assert "and 3 more" in said


def test_a_file_of_rejects_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "nowhere" / "rejects.jsonl")
    with pytest.raises(RejectsNotKept, match=r"rejects\.jsonl cannot be written: No such file"):
        rejects.add(Rejected(1, "no", {}))


async def test_the_plan_counts_what_would_be_done() -> None:
    plan = await Importer(Wishes(), now=NOW).plan(
        found(
            row(),
            row(id="g2", output_urls=f"{URL} https://other.example/a"),
            row(id="g3", created_at="2026-01-01 00:00:00"),
            row(id="g4", metadata={"fal_urls_temporary": False}),
            row(id="bad id"),
        ),
        {},
    )
    assert (plan.rows, plan.to_publish, plan.outputs) == (5, 3, 4)
    assert (plan.stored_already, plan.rejected, plan.dead) == (1, 1, 1)
    assert plan.oldest == datetime(2026, 1, 1, tzinfo=UTC)
    assert plan.next_death == datetime(2026, 5, 8, 10, tzinfo=UTC)
    assert plan.by_host == {"v3.fal.media": 3, "other.example": 1}


def test_what_was_seen_is_told_from_what_is_new() -> None:
    with rows_seen() as seen:
        assert [seen.setdefault(*each) for each in (("a", 1), ("b", -2), ("a", 3), ("b", -2))] == [
            1,
            -2,
            1,
            -2,
        ]
