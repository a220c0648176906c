"""What is damaged in an archive, all of it, and what can be done about that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.archive.archived_log import see_that_they_agree
from shared.archive.errors import ArchiveDamaged
from shared.archive.mending import missing
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
_MADE_ANEW: Final = (
    "Delete the entries named above that are there; then `storage-svc archive --once` makes each "
    "that is missing anew from its segment, the same as it was, and `velro archive verify` sees "
    "whether the segments are sound."
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
        segments_damaged: whether a segment is among what is damaged.
        unnamed: segments that no entry names, by their keys, where every entry could be read.
    """

    events: int = 0
    last: int = 0
    head: Entry | None = None
    damage: list[str] = field(default_factory=list[str])
    damaged_from: int = 0
    segments_damaged: bool = False
    unnamed: list[str] = field(default_factory=list[str])

    def note(self, what: str, *, position: int, of_manifest: bool = False) -> None:
        """Something that begins at this position is damaged: the manifest, else a segment."""
        self.damage.append(what)
        self.damaged_from = self.damaged_from or position
        self.segments_damaged = self.segments_damaged or not of_manifest


async def examined(archive: Archive, on_progress: Callable[[int, int], None]) -> Examined:
    """Read every segment and check every hash and link, past whatever is damaged.

    Args:
        archive: which.
        on_progress: called with how many segments of how many are read.

    Raises:
        StoreFailed: the bucket gave no answer.
    """
    found = Examined()
    # Before the entries: one that is written meanwhile has its segment first.
    unnamed = set(await archive.segments())
    runs = await archive.runs()
    of = sum(len(run) for run in runs)
    done = 0
    before: Entry | None = None
    for run in runs:
        if run and run is not runs[0]:
            await _gap(archive, before, run[0], found)
            before = None
        for link in run:
            before = await _segment(archive, link, before, found)
            if before is not None:
                unnamed.discard(before.key)
            found.head, found.last = before or found.head, link.last
            done += 1
            on_progress(done, of)
    if not found.damage:
        found.unnamed = sorted(unnamed)
    return found


async def _gap(archive: Archive, before: Entry | None, link: Link, found: Examined) -> None:
    """Note that an entry of the manifest is missing, and whether its segment is there."""
    what = (
        f"the manifest leads to position {found.last}, and the entry before position {link.first} "
        "is missing"
    )
    if before is None and found.last:
        # The entry before cannot be read: what follows from it is seen when it can.
        found.note(what, position=found.last + 1, of_manifest=True)
    elif await missing(archive, before, link) is not None:
        found.note(what, position=found.last + 1, of_manifest=True)
    else:
        found.note(f"{what}, as is a sound segment for it", position=found.last + 1)


async def _segment(
    archive: Archive, link: Link, before: Entry | None, found: Examined
) -> Entry | None:
    """Look at one segment; its entry, which the next one follows from, where that can be read."""
    try:
        entry = await archive.entry(link, after=before)
    except ArchiveDamaged as error:
        found.note(f"{error}", position=link.first, of_manifest=True)
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
    if not found.segments_damaged:
        return _MADE_ANEW
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
    if not found.segments_damaged:
        return _MADE_ANEW
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
