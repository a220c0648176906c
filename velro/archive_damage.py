"""What is damaged in an archive, all of it, and what can be done about that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.archive.archived_log import see_that_they_agree
from shared.archive.errors import ArchiveDamaged, ManifestBroken
from shared.archive.segment import whole_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.archive.archive import Archive
    from shared.archive.archived_log import WholeLog
    from shared.archive.manifest import Entry, Link

_VERSIONS: Final = (
    "Delete nothing yet. Where the bucket keeps versions, make the last sound version of each "
    "object named above the newest one again."
)


@dataclass(slots=True)
class Examined:
    """What reading a whole archive came to.

    Attributes:
        events: how many are as they were written.
        last: the position that the archive ends at.
        head: the newest entry that can be read.
        damage: a sentence for each thing that is not as it was written.
        damaged_from: the first position that is not sound; 0 where all is.
    """

    events: int = 0
    last: int = 0
    head: Entry | None = None
    damage: list[str] = field(default_factory=list[str])
    damaged_from: int = 0

    def note(self, what: str, *, position: int) -> None:
        """Something that begins at this position is damaged."""
        self.damage.append(what)
        self.damaged_from = self.damaged_from or position


async def examined(archive: Archive, on_progress: Callable[[int, int], None]) -> Examined:
    """Read every segment and check every hash and link, past whatever is damaged.

    Args:
        archive: which.
        on_progress: called with how many segments of how many are read.

    Raises:
        StoreFailed: the bucket gave no answer.
    """
    found = Examined()
    try:
        links = await archive.chain()
    except ManifestBroken as error:
        found.last = error.newest
        found.note(f"{error}", position=error.reached + 1)
        return found
    before: Entry | None = None
    for done, link in enumerate(links, start=1):
        before = await _segment(archive, link, before, found)
        found.head, found.last = before or found.head, link.last
        on_progress(done, len(links))
    return found


async def _segment(
    archive: Archive, link: Link, before: Entry | None, found: Examined
) -> Entry | None:
    """Look at one segment; its entry, which the next one follows from, where that can be read."""
    try:
        entry = await archive.entry(link, after=before)
    except ArchiveDamaged as error:
        found.note(f"{error}", position=link.first)
        return None
    try:
        content = await archive.content(entry, after=before)
    except ArchiveDamaged as error:
        found.note(f"{error}", position=link.first)
        return entry
    count = sum(1 for _ in whole_records(content))
    if count == entry.count:
        found.events += count
    else:
        found.note(f"{entry.key} holds {count} events, not {entry.count}", position=link.first)
    return entry


async def advice(found: Examined, archive: Archive, log: WholeLog) -> str:
    """What to do about the damage, by where else the damaged events are.

    Raises:
        ArchiveForked: the log holds other events than the archive.
        LogUnavailable: no answer.
    """
    begins, ends = await log.first_position(), await log.last_position()
    if found.head is not None and ends >= found.head.last:
        await see_that_they_agree(log, found.head)
    from_here = f"{found.damaged_from:,} to {found.last:,}"
    if begins <= found.damaged_from and found.last <= ends:
        return f"{_VERSIONS} Or, as the stream still has the events {from_here}, " + _write_anew(
            found, archive
        )
    has = f"it has {begins:,} to {ends:,}" if ends >= begins else "it has no events"
    return (
        f"{_VERSIONS} It cannot be written anew: the stream lacks some of the events {from_here} "
        f"({has}). The segments that are sound can still be read with `velro archive cat`."
    )


def advice_without_log(found: Examined, archive: Archive) -> str:
    """What to do about the damage while the log does not answer."""
    return (
        f"{_VERSIONS} Or, where the stream still has the events {found.damaged_from:,} to "
        f"{found.last:,}, which cannot be seen while it does not answer, "
        + _write_anew(found, archive)
    )


def _write_anew(found: Examined, archive: Archive) -> str:
    return (
        "write the archive anew from there: delete what is named above and, the highest first, "
        f"every object under {archive.manifest} whose name begins with {found.damaged_from:020d} "
        "or a higher number; then `storage-svc archive --once` and `velro archive verify`."
    )
