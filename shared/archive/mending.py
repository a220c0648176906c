"""Entries of the manifest made anew, from the segments that they told of.

An entry follows from its segment and from the entry before, and the entry behind it names its hash:
so what is made anew is what was there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from shared.archive.errors import ArchiveDamaged, ManifestBroken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from shared.archive.archive import Archive
    from shared.archive.manifest import Entry, Link

_log = structlog.get_logger(__name__)


async def mend(archive: Archive) -> AsyncGenerator[Entry, None]:
    """Write what is missing between the entries of the manifest; yields what was.

    Raises:
        StoreFailed: the bucket gave no answer; the same again does the rest.
        ArchiveDamaged: it cannot be made anew: a segment is missing or damaged too. Or the bucket
            does not list what was made.
    """
    mended: Link | None = None
    while True:
        try:
            await archive.chain()
        except ManifestBroken as broken:
            before = await archive.entry(broken.runs[0][-1]) if broken.runs[0] else None
            behind = broken.runs[1][0]
            made = await missing(archive, before, behind)
            if made is None or behind == mended:
                raise
            mended = behind
            for entry in made:
                await archive.put_entry(entry)
                yield entry
        else:
            return


async def missing_end(archive: Archive, head: Entry | None, *, until: int) -> list[Entry]:
    """The entries behind the last one, made from segments that nothing leads to; none is written.

    For a log that does not have these events any more. Nothing behind them proves them: that the
    log has the last of their events is for the caller to see.

    Args:
        archive: which.
        head: its last entry.
        until: the position that they have to lead to, or past; else there are none.

    Raises:
        StoreFailed: the bucket gave no answer.
    """
    return (
        await _leading(archive, await archive.segments(), head, lambda made: _end(made) >= until)
        or []
    )


async def missing(archive: Archive, before: Entry | None, link: Link) -> list[Entry] | None:
    """What is missing between an entry and a link, made from segments; none is written.

    None where a segment is missing or damaged too.

    Raises:
        StoreFailed: the bucket gave no answer.
    """
    keys = [key for key in await archive.segments() if archive.begins(key) < link.first]
    return await _leading(archive, keys, before, link.follows)


async def _leading(
    archive: Archive,
    keys: Iterable[str],
    before: Entry | None,
    there: Callable[[Entry | None], bool],
) -> list[Entry] | None:
    """The entries from one on until it is reached what is looked for; None where it never is."""
    beginning: dict[int, list[str]] = {}
    for key in keys:
        beginning.setdefault(archive.begins(key), []).append(key)
    made: list[Entry] = []
    at = before
    # Two archivers may have cut the same events differently: not all ways need lead on.
    ways = [iter(beginning.get(_end(at) + 1, ()))]
    while not there(at):
        key = next(ways[-1], None)
        if key is not None:
            try:
                at = await archive.entry_from(key, after=at)
            except ArchiveDamaged as error:
                _log.warning("segment_is_of_no_use", key=key, reason=str(error))
                continue
            made.append(at)
            ways.append(iter(beginning.get(at.last + 1, ())))
        elif made:
            ways.pop()
            made.pop()
            at = made[-1] if made else before
        else:
            return None
    return made


def _end(entry: Entry | None) -> int:
    return entry.last if entry else 0
