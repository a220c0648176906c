"""A generation as it was: its events folded again, up to a moment or a position in the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_jsonable_python

from generation_svc.read_model.fold import evolve
from generation_svc.read_model.rows import StorageState
from generation_svc.read_model.views import GenerationView
from shared.errors import Refused
from shared.event_log.port import CorruptRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded
    from shared.event_log.port import EventLog

Moment = int | datetime
"""A position of the log, or a time."""

_NOT_STORED = frozenset({StorageState.TEMPORARY, StorageState.PARTIAL, StorageState.LOST})


class NoMoment(Refused):
    """The text is neither a position nor a time, or lies in the future."""


def moment(text: str) -> Moment:
    """Read a position (`1234`) or a time in ISO 8601 with its zone (`2026-05-04T10:00:00Z`).

    Raises:
        NoMoment: it is neither.
    """
    if text.isascii() and text.isdecimal():
        return int(text)
    # In a query's text a plus is a space, unless it was written as %2B.
    try:
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise NoMoment(
            f"{text!r} is neither a position of the log (1234) nor a time (2026-05-04T10:00:00Z)"
        ) from error
    if found.tzinfo is None:
        raise NoMoment(f"{text!r} has no zone: write 2026-05-04T10:00:00Z")
    return found


async def see_that_it_was(at: Moment, log: EventLog, *, now: datetime) -> None:
    """See that a moment has been: what is shown of a later one might still become otherwise.

    Raises:
        NoMoment: it lies in the future.
        LogUnavailable: no answer.
    """
    if isinstance(at, datetime):
        if at > now:
            raise NoMoment(f"{at.isoformat()} lies in the future: it is {now.isoformat()}")
    elif at > (end := await log.last_position()):
        raise NoMoment(f"position {at} lies in the future: the log ends at {end}")


async def history(log: EventLog, generation_id: str, *, at: Moment | None = None) -> list[Recorded]:
    """Everything that happened to a generation, in the log's order; up to a moment, if given.

    Of an event that cannot be decoded only its position is known. Where `at` is a time, what came
    before it tells enough if some of that is later than `at`.

    Raises:
        LogUnavailable: no answer.
        CorruptRecord: an event cannot be decoded, and may belong to what was asked for.
    """
    last = at if isinstance(at, int) else None
    unreadable: CorruptRecord | None = None
    while True:
        try:
            generation = await log.load("generation", generation_id, until=last)
            storage = await log.load("storage", generation_id, until=last)
            break
        except CorruptRecord as error:
            if not isinstance(at, datetime):
                raise
            last, unreadable = error.position - 1, error
    events = sorted((*generation.events, *storage.events), key=lambda event: event.position)
    found = events if at is None else until(events, at)
    if unreadable is not None and len(found) == len(events):
        raise unreadable
    return found


def until(events: Iterable[Recorded], end: Moment) -> list[Recorded]:
    """Those up to a position, or a time, inclusive."""
    if isinstance(end, datetime):
        return [event for event in events if event.envelope.time <= end]
    return [event for event in events if event.position <= end]


def folded(events: Iterable[Recorded]) -> GenerationRow | None:
    """What they add up to, exactly as in the read model; None before anything happened."""
    row: GenerationRow | None = None
    for event in events:
        row = evolve(row, event)
    return row


def view_of(generation_id: str, row: GenerationRow) -> GenerationView:
    """A row that was folded from the beginning, as its readers see it in the table."""
    waits = row.storage_state in _NOT_STORED
    migration = row.migration
    return GenerationView(
        id=generation_id,
        position=row.position,
        user_id=row.user_id,
        provider=row.provider,
        model=row.model,
        input=from_json(row.asked.input) if row.asked else None,
        metadata=from_json(row.asked.metadata) if row.asked else None,
        status=row.status,
        attempts=row.attempts,
        request_id=row.request_id,
        failure=row.failure,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        outputs=row.outputs,
        storage_state=row.storage_state,
        storage_failed_at=row.storage_failed_at,
        earliest_link_death=row.earliest_link_death,
        storage_retry_needed=waits,
        fal_urls_temporary=waits,
        requires_background_migration=waits,
        storage_successful=row.storage_state is StorageState.STORED,
        migration_completed_at=migration.completed_at if migration else None,
        total_migrated_size=migration.total_size_bytes if migration else None,
        migration_file_count=migration.file_count if migration else None,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """What one event changed of a generation, by field; both sides as JSON has them."""

    event: Recorded
    fields: dict[str, tuple[Any, Any]]


def changes(events: Sequence[Recorded], begin: Moment, end: Moment) -> list[Change]:
    """Which event changed which field, after `begin` and up to `end`.

    An event that changed nothing that a reader sees is listed with no field.
    """
    known = until(events, begin)
    before = folded(known)
    seen = {event.position for event in known}
    found: list[Change] = []
    row = before
    for event in until(events, end):
        if event.position in seen:
            continue
        after = evolve(row, event)
        old, new = _changing(event, row), _changing(event, after)
        fields = {
            name: (old.get(name), new.get(name))
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        }
        found.append(Change(event, fields))
        row = after
    return found


def fields_of(generation_id: str, row: GenerationRow) -> dict[str, Any]:
    """What a reader sees of a row, by field, as JSON has it; those of outputs by index too."""
    told = to_jsonable_python(view_of(generation_id, row))
    outputs = told.pop("outputs")
    return told | {
        f"outputs.{index}.{field}": each
        for index, output in enumerate(outputs)
        for field, each in output.items()
    }


def _changing(event: Recorded, row: GenerationRow | None) -> dict[str, Any]:
    """A row's fields, without those that every event changes."""
    if row is None:
        return {}
    told = fields_of(event.envelope.subject, row)
    return {name: value for name, value in told.items() if name not in {"position", "updated_at"}}
