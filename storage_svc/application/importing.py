"""Rows of another application as events of the log: planned first, then published, never twice."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import ValidationError
from yarl import URL

from shared.contracts.envelope import Context, seal_decision
from shared.contracts.facts import Output
from shared.contracts.generation_events import GenerationCompleted, GenerationRequested
from shared.event_log.port import Addition
from storage_svc.application.import_rows import FLAGS, Found, Rejected, Row, why

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping

    from shared.contracts.generation_events import GenerationEvent
    from shared.event_log.port import EventLog

SOURCE: Final = "velro/import"
# As many hosts are told apart in a plan; what comes after them is counted together.
_MAX_HOSTS: Final = 1000
OTHER_HOSTS: Final = "(other hosts)"
_SHOWN_REJECTED: Final = 5
# UTF-8 takes up to 4 bytes for each, and NATS 1 MiB a message unless told otherwise.
_MAX_ROW_CHARS: Final = 200_000
_OTHER_EVENTS: Final = "the log has other events of a generation with this id"
# Clocks differ, and what is later than that is a mistake: its links would seem to live for years.
_MAX_AHEAD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How rows are read.

    Attributes:
        lifetime: of links whose row does not say when they die.
        provider, model: of rows that do not say.
        columns: by our name of a column, the name in the source.
        include_stored: also rows whose flags say that all is stored.
        skip_dead: leave out rows whose links should be dead.
    """

    lifetime: timedelta = timedelta(days=7)
    provider: str = "fal"
    model: str = "imported"
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    include_stored: bool = False
    skip_dead: bool = False


@dataclass(slots=True)
class Plan:
    """What an import would do, counted over all rows.

    Attributes:
        dead: of those to publish, how many have links that should be dead by now.
        first_rejected: the first rows that cannot be imported, by number, and why.
        by_host: how many outputs to publish come from where.
    """

    rows: int = 0
    to_publish: int = 0
    outputs: int = 0
    stored_already: int = 0
    rejected: int = 0
    dead: int = 0
    oldest: datetime | None = None
    next_death: datetime | None = None
    first_rejected: list[tuple[int, str]] = field(default_factory=list["tuple[int, str]"])
    by_host: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, row: Row, dies_at: datetime, now: datetime) -> None:
        """Count a row that would be published."""
        self.to_publish += 1
        self.outputs += len(row.output_urls)
        self.oldest = min(self.oldest or row.created_at, row.created_at)
        if dies_at <= now:
            self.dead += 1
        else:
            self.next_death = min(self.next_death or dies_at, dies_at)
        for text in row.output_urls:
            host = URL(text).host or ""
            known = host in self.by_host or len(self.by_host) < _MAX_HOSTS
            name = host if known else OTHER_HOSTS
            self.by_host[name] = self.by_host.get(name, 0) + 1


@dataclass(slots=True)
class Imported:
    """What an import did so far.

    Attributes:
        rows: read.
        events: written.
        events_there_before: which the log had already, from an earlier run.
        stored_already: rows that need no storing.
    """

    rows: int = 0
    events: int = 0
    events_there_before: int = 0
    stored_already: int = 0
    rejected: int = 0


class Seen(Protocol):
    """Which ids were met before, each with a hash of its row; a dict will do for a few."""

    def setdefault(self, row_id: str, row: int, /) -> int:
        """The hash that this id was met with first, which is this one where it is new."""
        ...


class Importer:
    """Makes additions to the log out of rows, and tells of every row that it leaves out."""

    def __init__(self, wishes: Wishes, *, now: datetime) -> None:
        self._wishes = wishes
        self._now = now

    async def plan(self, source: AsyncIterable[Found], seen: Seen) -> Plan:
        """Read everything, and count; `seen` is empty."""
        plan = Plan()
        async for found in source:
            plan.rows += 1
            match self._read(found, seen):
                case Rejected() as rejected:
                    plan.rejected += 1
                    if len(plan.first_rejected) < _SHOWN_REJECTED:
                        plan.first_rejected.append((rejected.number, rejected.reason))
                case None:
                    plan.stored_already += 1
                case Row() as row:
                    plan.add(row, self._dies_at(row), self._now)
        return plan

    async def publish(
        self,
        source: AsyncIterable[Found],
        seen: Seen,
        log: EventLog,
        reject: Callable[[Rejected], None],
    ) -> AsyncGenerator[Imported, None]:
        """Append every row that needs storing; yields how far it is, after each batch.

        A repeat writes nothing twice. `seen` is empty. Close the generator (`contextlib.aclosing`).

        Raises:
            The same as `EventLog.append_all`.
        """
        done = Imported()
        in_flight: deque[tuple[str, Found]] = deque()

        def refuse(rejected: Rejected) -> None:
            done.rejected += 1
            reject(rejected)

        async def additions() -> AsyncGenerator[Addition, None]:
            async for found in source:
                done.rows += 1
                match self._read(found, seen):
                    case Rejected() as rejected:
                        refuse(rejected)
                    case None:
                        done.stored_already += 1
                    case Row() as row:
                        in_flight.append((row.id, found))
                        yield self._addition(row)

        async with aclosing(log.append_all(additions())) as written:
            async for added in written:
                conflicts = {addition.generation_id for addition in added.conflicts}
                for _ in range(added.additions):
                    generation_id, found = in_flight.popleft()
                    if generation_id in conflicts:
                        refuse(Rejected(found.number, _OTHER_EVENTS, found.values))
                done.events += added.events_written
                done.events_there_before += added.events_there_before
                yield done
        yield done

    def _read(self, found: Found, seen: Seen) -> Row | Rejected | None:
        """The row; None where it needs no storing."""
        values = found.values
        if values is None:
            return Rejected(found.number, found.unreadable, None)
        size = sum(len(str(value)) for value in values.values())
        if size > _MAX_ROW_CHARS:
            reason = f"{size:,} characters, and an event takes at most {_MAX_ROW_CHARS:,}"
            return Rejected(found.number, reason, None)
        try:
            row = Row.model_validate(self._renamed(values))
        except ValidationError as error:
            return Rejected(found.number, why(error), values)
        if not (row.needs_storing or self._wishes.include_stored):
            return None
        if refusal := self._refusal(row, seen):
            return Rejected(found.number, refusal, values)
        return row

    def _refusal(self, row: Row, seen: Seen) -> str | None:
        dies_at = self._dies_at(row)
        if row.created_at > self._now + _MAX_AHEAD:
            return f"created_at: {row.created_at:%Y-%m-%d %H:%M} UTC is in the future"
        if self._wishes.skip_dead and dies_at <= self._now:
            return f"its links should be dead since {dies_at:%Y-%m-%d %H:%M} UTC"
        # An id is a generation: what differs would be taken for a repeat, and left out unsaid.
        same = hash((row.user, row.output_urls))
        if seen.setdefault(row.id, same) != same:
            return "a row before has this id and other outputs; one row should list them all"
        return None

    def _renamed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        columns = self._wishes.columns
        return {
            name: values[columns.get(name, name)]
            for name in Row.model_fields
            if columns.get(name, name) in values
        }

    def _dies_at(self, row: Row) -> datetime:
        return row.expires_at or row.created_at + self._wishes.lifetime

    def _addition(self, row: Row) -> Addition:
        provider, model = row.provider or self._wishes.provider, row.model or self._wishes.model
        completed = GenerationCompleted(
            user_id=row.user,
            provider=provider,
            model=model,
            outputs=tuple(
                Output(index=index, source_url=url, expires_at=self._dies_at(row))
                for index, url in enumerate(row.output_urls)
            ),
        )
        events: list[GenerationEvent] = [completed]
        if kept := {name: value for name, value in row.metadata.items() if name not in FLAGS}:
            # A completion has no room for the owner's own notes; a request has.
            requested = GenerationRequested(
                user_id=row.user, provider=provider, model=model, input={}, metadata=kept
            )
            events.insert(0, requested)
        sealed = seal_decision(
            events, generation_id=row.id, at=row.created_at, context=Context(source=SOURCE)
        )
        return Addition("generation", row.id, tuple(sealed))
