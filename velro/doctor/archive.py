"""The log's archive in the bucket: is it of this log, and how much of the log is in it."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from shared.archive.archive import Archive
from shared.archive.archived_log import see_that_they_agree
from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.trimmed import BeginningMissing, TrimmedIndex
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.object_store.s3 import s3_object_store
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.archive.settings import ArchiveSettings
    from shared.object_store.settings import S3Settings
    from shared.settings import LogSettings

_TIMEOUT_S: Final = 5.0
# The archiver looks every 15 s at the latest, and a segment takes its time.
_LATE: Final = timedelta(minutes=2)
_VERY_LATE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Archived:
    """A log and its archive."""

    log: JetStreamLog
    archive: Archive
    trimmed: TrimmedIndex
    settings: ArchiveSettings


def archive_part(log: LogSettings, bucket: S3Settings, settings: ArchiveSettings) -> Part[Any]:
    """The archive of the log."""
    quick = bucket.model_copy(update={"timeout_s": min(bucket.timeout_s, _TIMEOUT_S)})

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Archived]:
        async with (
            connected(NatsAccess.of(log), name="velro doctor", timeout_s=5.0) as connection,
            s3_object_store(quick) as store,
        ):
            yield Archived(
                JetStreamLog(connection, log.subjects, stream=log.stream),
                Archive(store, log.stream, settings),
                TrimmedIndex(connection, log.subjects, log.stream),
                settings,
            )

    return Part(
        name="archive",
        opened=opened,
        checks={"log": _log, "age": _age},
        advice="see that the bucket and NATS answer, as their own checks say",
    )


async def _log(archived: Archived) -> Verdict:
    try:
        head = await archived.archive.head()
        first = await archived.log.first_position()
        if first > (head.last + 1 if head else 1):
            return red(
                f"the log begins at position {first:,}, and the archive ends at "
                f"{head.last if head else 0:,}: what is between them is in neither",
                "bring the bucket's objects under the archive's prefix back, from its versions or "
                "a backup, before anything is rebuilt",
            )
        if head is None:
            return green("nothing is archived yet")
        await see_that_they_agree(archived.log, head)
        await archived.trimmed.see_that_nothing_is_missing()
    except BeginningMissing as error:
        return red(f"{error}", "`velro restore` finds what is in the archive again")
    except ArchiveForked as error:
        return red(
            f"{error}",
            "stop the services. If events were lost, `velro restore` brings them back into an "
            "empty server; where the log is another one on purpose, give it a VELRO_ARCHIVE_PREFIX "
            "of its own",
        )
    except ArchiveDamaged as error:
        return red(f"{error}", "`velro archive verify` names what is damaged")
    trimmed = f"; those before {first:,} are in the archive alone" if first > 1 else ""
    return green(f"the event at position {head.last} is the same in both{trimmed}")


async def _age(archived: Archived) -> Verdict:
    try:
        head = await archived.archive.head()
    except ArchiveDamaged as error:
        return red(f"{error}", "`velro archive verify` names what is damaged")
    after, end = head.last if head else 0, await archived.log.last_position()
    if not archived.settings.enabled:
        return yellow(
            f"archiving is turned off; {max(end - after, 0):,} events are in the log alone",
            "set VELRO_ARCHIVE_ENABLED=true for the storage service, or copy the log elsewhere",
        )
    if end <= after:
        return green(f"all {end:,} events are archived")
    waits = await _waits_since(archived.log, after)
    due = timedelta(seconds=archived.settings.segment_age_s)
    return judged_age(end - after, waits, due=due)


def judged_age(events: int, waits: timedelta, *, due: timedelta) -> Verdict:
    """What it means that the oldest of so many events, archived when `due`, waits for so long."""
    found = f"{events:,} events are not archived, the oldest for {waits.total_seconds():.0f} s"
    late = waits - due
    advice = "the storage service archives; its log lines `not_archived` say what is in the way"
    if late > _VERY_LATE:
        return red(found, advice)
    return yellow(found, advice) if late > _LATE else green(found)


async def _waits_since(log: JetStreamLog, after: int) -> timedelta:
    """For how long the first event after a position has been in the log."""
    async with aclosing(log.read_whole(after=after, until=after + 1)) as source:
        async for records in source:
            stored_at = datetime.fromtimestamp(records[0].stored_at_ns / 1e9, UTC)
            return datetime.now(UTC) - stored_at
    return timedelta()
