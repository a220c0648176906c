"""The manifest: one small object a segment, each naming the one before by its hash.

Objects are named by what is in them and never change, so two archivers at work at once do no harm:
at worst they cut the same events differently, and then there are two chains, both true. Nothing
rests on the bucket honouring conditions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime, ValidationError

from shared.archive.errors import ArchiveDamaged, ManifestBroken
from shared.contracts.facts import Fact, Sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.archive.segment import Segment
    from shared.event_log.port import WholeRecord

NO_ENTRY: Final = "0" * 64
"""What the first entry names as the one before it."""

_NAME: Final = re.compile(r"(\d{20})-(\d{20})-([0-9a-f]{16})-([0-9a-f]{16})\.json")
_SHORT: Final = 16
_NANOSECONDS: Final = 1_000_000_000


class Entry(Fact):
    """What the manifest says of one segment.

    Attributes:
        number: from 1.
        count: how many events the segment holds.
        content_sha256: the segment's hash, which the next segment names too.
        content_bytes: before compression.
        packed_sha256, packed_bytes: of the object at `key`.
        previous: the hash of the entry before.
        first_stored_at, last_stored_at: when the server took its first and its last event.
        last_record_sha256: of the last event, to know the log again.
    """

    stream: str
    number: int
    first: int
    last: int
    count: int
    key: str
    content_sha256: Sha256
    content_bytes: int
    packed_sha256: Sha256
    packed_bytes: int
    previous: Sha256
    first_stored_at: AwareDatetime
    last_stored_at: AwareDatetime
    last_record_sha256: Sha256

    def encoded(self) -> bytes:
        """As it is stored."""
        return self.model_dump_json().encode()

    @property
    def hash(self) -> str:
        """What the next entry names."""
        return sha256(self.encoded()).hexdigest()


@dataclass(frozen=True, slots=True)
class Link:
    """What an entry's name tells of it; hashes are cut to 16 hex digits."""

    name: str
    first: int
    last: int
    hash: str
    previous: str

    def follows(self, entry: Entry | None) -> bool:
        """Whether it names this entry as the one before it; None: that it is the first."""
        return self.previous == (entry.hash if entry else NO_ENTRY)[:_SHORT]


def entry_of(
    segment: Segment, records: Sequence[WholeRecord], after: Entry | None, *, stream: str, root: str
) -> Entry:
    """What is said of a segment that follows from an entry, and holds these records."""
    head = segment.head
    name = f"{head.first:020d}-{head.last:020d}-{segment.content_sha256[:_SHORT]}.zst"
    return Entry(
        stream=stream,
        number=after.number + 1 if after else 1,
        first=head.first,
        last=head.last,
        count=len(records),
        key=f"{root}/segments/{name}",
        content_sha256=segment.content_sha256,
        content_bytes=segment.content_bytes,
        packed_sha256=sha256(segment.packed).hexdigest(),
        packed_bytes=len(segment.packed),
        previous=after.hash if after else NO_ENTRY,
        first_stored_at=_moment(records[0].stored_at_ns),
        last_stored_at=_moment(records[-1].stored_at_ns),
        last_record_sha256=segment.last_record_sha256,
    )


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / _NANOSECONDS, UTC)


def name_of(entry: Entry) -> str:
    """The name of an entry's object."""
    hashes = f"{entry.hash[:_SHORT]}-{entry.previous[:_SHORT]}"
    return f"{entry.first:020d}-{entry.last:020d}-{hashes}.json"


def decoded(data: bytes, link: Link) -> Entry:
    """The entry that a name leads to.

    Raises:
        ArchiveDamaged: it is not that one.
    """
    try:
        entry = Entry.model_validate_json(data)
    except ValidationError as error:
        raise ArchiveDamaged(f"manifest entry {link.name} cannot be read: {error}") from error
    if name_of(entry) != link.name:
        raise ArchiveDamaged(f"manifest entry {link.name} holds another entry: {name_of(entry)}")
    return entry


def links(names: Iterable[str]) -> list[Link]:
    """What the names tell; others are none of ours."""
    found = (_NAME.fullmatch(name) for name in names)
    return [
        Link(match[0], int(match[1]), int(match[2]), match[3], match[4])
        for match in found
        if match is not None
    ]


def chain(found: Iterable[Link]) -> list[Link]:
    """The longest chain from the first position on, oldest link first; one of several by hash.

    Raises:
        ManifestBroken: there are entries, and no chain leads to the last of them.
    """
    by_hash = {link.hash: link for link in found}
    if not by_hash:
        return []
    whole: dict[str, bool] = {NO_ENTRY[:_SHORT]: True}
    for link in sorted(by_hash.values(), key=lambda link: link.first):
        before = by_hash.get(link.previous)
        follows = link.first == (before.last + 1 if before else 1)
        whole[link.hash] = follows and whole.get(link.previous, False)
    kept = _run(link for link in by_hash.values() if whole[link.hash])
    reached, newest = _end(kept), _end(by_hash.values())
    if reached < newest:
        runs = [kept, *_runs_behind(by_hash.values(), after=reached)]
        raise ManifestBroken(
            f"the manifest leads to position {reached} and has entries up to {newest}: the "
            f"entry named {runs[1][0].previous}, which comes before position "
            f"{runs[1][0].first}, is missing",
            runs=runs,
        )
    return kept


def _end(found: Iterable[Link]) -> int:
    return max((link.last for link in found), default=0)


def _run(found: Iterable[Link]) -> list[Link]:
    """Those that lead to the last of some, oldest first; one of several by hash."""
    by_hash = {link.hash: link for link in found}
    tip = max(by_hash.values(), key=lambda link: (link.last, link.hash), default=None)
    run: list[Link] = []
    while tip is not None:
        run.append(tip)
        before = by_hash.get(tip.previous)
        tip = before if before is not None and before.last + 1 == tip.first else None
    return run[::-1]


def _runs_behind(found: Iterable[Link], *, after: int) -> list[list[Link]]:
    """What is behind a position, in runs that nothing is missing in."""
    runs: list[list[Link]] = []
    left = [link for link in found if link.last > after]
    while left:
        run = _run(left)
        runs.append(run)
        left = [link for link in left if link.last < run[0].first]
    return runs[::-1]
