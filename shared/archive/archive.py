"""The archive of one stream, in one bucket. See docs/archive-format.md for what is in it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from shared.archive.errors import ArchiveDamaged, ManifestBroken
from shared.archive.manifest import Entry, Link, chain, decoded, entry_of, links, name_of
from shared.archive.segment import (
    NO_SEGMENT,
    opened,
    pack,
    raw_records,
    unpack,
    whole_records,
)
from shared.object_store.port import Held, PutOrder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from shared.archive.settings import ArchiveSettings
    from shared.event_log.port import RawRecord, WholeRecord
    from shared.object_store.port import ObjectStore

AnyRecord = TypeVar("AnyRecord", bound="RawRecord")

_BATCH: Final = 2000
# Of a segment whose size nobody knows any more: far more than settings that make sense lead to.
_MAX_SEGMENT_BYTES: Final = 1024 * 1024 * 1024


class Archive:
    """Segments of the log, and the manifest that leads through them."""

    def __init__(self, bucket: ObjectStore, stream: str, settings: ArchiveSettings) -> None:
        self._bucket = bucket
        self._stream = stream
        self._root = f"{settings.prefix}/{stream}"

    @property
    def root(self) -> str:
        """What every key of it begins with, without the slash at the end."""
        return self._root

    @property
    def manifest(self) -> str:
        """What the keys of its manifest begin with."""
        return f"{self._root}/manifest/"

    async def chain(self) -> list[Link]:
        """The manifest's names, oldest first.

        Raises:
            StoreFailed: the bucket gave no answer.
            ManifestBroken: an entry is missing.
        """
        prefix = self.manifest
        names = [key.removeprefix(prefix) async for key in self._bucket.keys(prefix)]
        return chain(links(names))

    async def runs(self) -> Sequence[Sequence[Link]]:
        """The same in parts: the chain alone, or what is on each side of entries that are missing.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        try:
            return [await self.chain()]
        except ManifestBroken as error:
            return error.runs

    async def entry(self, link: Link, *, after: Entry | None = None) -> Entry:
        """What the manifest says of one segment; seen to follow from another, where that is given.

        Raises:
            StoreFailed: the bucket gave no answer.
            ArchiveDamaged: it is missing, is not what its name says, or does not follow.
        """
        data = await self._fetched(f"{self.manifest}{link.name}")
        entry = decoded(data, link)
        if after is not None and entry.previous != after.hash:
            raise ArchiveDamaged(f"manifest entry {link.name} does not follow from the one before")
        return entry

    async def head(self) -> Entry | None:
        """The newest entry; None in an empty archive.

        Raises:
            StoreFailed, ArchiveDamaged: as `chain` and `entry`.
        """
        found = await self.chain()
        return await self.entry(found[-1]) if found else None

    async def end(self) -> int:
        """The last position that an entry is about, whatever is missing before; 0 without one.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        newest = (await self.runs())[-1]
        return newest[-1].last if newest else 0

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """Every entry, oldest first, each checked to follow from the one before.

        Raises:
            StoreFailed, ArchiveDamaged: as `chain` and `entry`; where an entry is missing, after
                those that lead up to it.
        """
        along, broken = await self._along(after=0)
        async for entry in self._entries(along):
            yield entry
        if broken is not None:
            raise broken

    async def write(self, records: Sequence[WholeRecord], *, after: Entry | None) -> Entry:
        """Add a segment of records that follow what the archive holds. A repeat changes nothing.

        Raises:
            ValueError: they do not follow: a mistake of the caller.
            StoreFailed: the bucket did not take all of it; what it took does no harm.
        """
        expected = after.last + 1 if after else 1
        if records[0].position != expected:
            raise ValueError(f"position {expected} comes next, not {records[0].position}")
        previous = after.content_sha256 if after else NO_SEGMENT
        segment = await asyncio.to_thread(pack, records, previous=previous)
        entry = entry_of(segment, records, after, stream=self._stream, root=self._root)
        await self._put(entry.key, segment.packed, "application/zstd")
        await self.put_entry(entry)
        return entry

    async def put_entry(self, entry: Entry) -> None:
        """Make an entry part of the manifest.

        Raises:
            StoreFailed: the bucket did not take it.
        """
        await self._put(f"{self.manifest}{name_of(entry)}", entry.encoded(), "application/json")

    async def segments(self) -> list[str]:
        """The keys of the segments, oldest first, whether the manifest leads to them or not.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        return sorted([key async for key in self._bucket.keys(f"{self._root}/segments/")])

    def begins(self, key: str) -> int:
        """The first position of a segment, by its key; 0 where it is none."""
        name = key.removeprefix(f"{self._root}/segments/")[:20]
        return int(name) if name.isdecimal() else 0

    async def entry_from(self, key: str, *, after: Entry | None) -> Entry:
        """What the manifest said, or would say, of a segment that follows from an entry.

        Raises:
            StoreFailed: the bucket gave no answer.
            ArchiveDamaged: it is no sound segment, or does not follow.
        """
        packed = await self._fetched(key, max_bytes=_MAX_SEGMENT_BYTES)
        segment, records = await asyncio.to_thread(
            opened,
            packed,
            previous=after.content_sha256 if after else NO_SEGMENT,
            max_bytes=_MAX_SEGMENT_BYTES,
        )
        entry = entry_of(segment, records, after, stream=self._stream, root=self._root)
        if entry.key != key:
            raise ArchiveDamaged(f"{key} holds what belongs to {entry.key}")
        return entry

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """Records after a position, in order, 2,000 at a time, every segment checked by its hash.

        While one segment is given out the next one is fetched; so two are in memory.

        Raises:
            StoreFailed: the bucket gave no answer.
            ArchiveDamaged: a segment is missing or is not what was written.
        """
        async with aclosing(self._read(raw_records, after, until)) as source:
            async for batch in source:
                yield batch

    async def records_at(self, positions: Sequence[int]) -> list[RawRecord]:
        """The records of some positions, in order. Each segment that holds one is read whole.

        Raises:
            StoreFailed: the bucket gave no answer.
            ArchiveDamaged: a segment is missing or is not what was written, or none holds it.
        """
        found: list[RawRecord] = []
        # Where an entry is missing takes nothing away from the others.
        for link in (link for run in await self.runs() for link in run):
            here = {each for each in positions if link.first <= each <= link.last}
            if here:
                content = await self.content(await self.entry(link))
                found += [record for record in raw_records(content) if record.position in here]
        if missing := set(positions) - {record.position for record in found}:
            raise ArchiveDamaged(f"the archive has no event at position {min(missing)}")
        return found

    async def read_whole(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[WholeRecord], None]:
        """As `read`, with all that is kept of each event."""
        async with aclosing(self._read(whole_records, after, until)) as source:
            async for batch in source:
                yield batch

    async def _read(
        self,
        records_of: Callable[[bytes], Iterable[AnyRecord]],
        after: int,
        until: int | None,
    ) -> AsyncGenerator[Sequence[AnyRecord], None]:
        along, broken = await self._along(after=after)
        wanted = [
            link for link in along if link.last > after and (until is None or link.first <= until)
        ]
        async with aclosing(self._entries(wanted)) as entries:
            coming = asyncio.ensure_future(self._next_content(entries))
            position = after
            try:
                while (content := await coming) is not None:
                    coming = asyncio.ensure_future(self._next_content(entries))
                    records = iter(records_of(content))
                    while batch := list(islice(records, _BATCH)):
                        kept = [
                            record
                            for record in batch
                            if record.position > after
                            and (until is None or record.position <= until)
                        ]
                        if not kept:
                            continue
                        _follow(position, kept)
                        position = kept[-1].position
                        yield kept
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
        if broken is not None and (until is None or position < until):
            raise broken

    async def _along(self, *, after: int) -> tuple[list[Link], ManifestBroken | None]:
        """The links that lead on from a position; and, where an entry is missing, that it is."""
        try:
            return await self.chain(), None
        except ManifestBroken as error:
            for run in error.runs:
                if run and run[0].first <= after + 1 <= run[-1].last:
                    # What comes behind the last run is still to be written.
                    return list(run), None if run is error.runs[-1] else error
            raise

    async def _entries(self, along: Sequence[Link]) -> AsyncGenerator[Entry, None]:
        before: Entry | None = None
        for link in along:
            entry = await self.entry(link, after=before)
            yield entry
            before = entry

    async def _next_content(self, entries: AsyncGenerator[Entry, None]) -> bytes | None:
        entry = await anext(entries, None)
        return None if entry is None else await self.content(entry)

    async def content(self, entry: Entry, *, after: Entry | None = None) -> bytes:
        """One segment, unpacked and checked; also against the one before it, where that is given.

        Raises:
            StoreFailed: the bucket gave no answer.
            ArchiveDamaged: it is missing, or is not what was written.
        """
        packed = await self._fetched(entry.key, max_bytes=entry.packed_bytes)
        try:
            head, content = await asyncio.to_thread(
                unpack, packed, content_sha256=entry.content_sha256, max_bytes=entry.content_bytes
            )
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"{entry.key}: {error}") from error
        if (head.first, head.last) != (entry.first, entry.last):
            raise ArchiveDamaged(
                f"{entry.key} holds {head.first} to {head.last}, "
                f"and should hold {entry.first} to {entry.last}"
            )
        if after is not None and head.previous != after.content_sha256:
            raise ArchiveDamaged(f"{entry.key} does not follow from {after.key}")
        return content

    async def _fetched(self, key: str, *, max_bytes: int = 1024 * 1024) -> bytes:
        if await self._bucket.head(key) is None:
            raise ArchiveDamaged(f"{key} is missing from the bucket")
        pieces: list[bytes] = []
        received = 0
        async for piece in self._bucket.read(key):
            received += len(piece)
            if received > max_bytes:
                raise ArchiveDamaged(f"{key} is larger than the {max_bytes:,} bytes written")
            pieces.append(piece)
        return b"".join(pieces)

    async def _put(self, key: str, data: bytes, media_type: str) -> None:
        await self._bucket.put(
            PutOrder(
                key=key,
                path=Held(data),
                size_bytes=len(data),
                sha256=sha256(data).hexdigest(),
                media_type=media_type,
            )
        )


def _follow(position: int, records: Sequence[RawRecord]) -> None:
    first, last = records[0].position, records[-1].position
    if first != position + 1 or last != position + len(records):
        raise ArchiveDamaged(f"after position {position} the archive has {first} to {last}")
