"""The three-way reconcile: log, read models, bucket."""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shared.object_store.probe import PREFIX as PROBE_PREFIX
from shared.processes.cores import processes_worth_having
from shared.processes.together import together
from velro.replaying import log_of
from velro.verify.bucket import Buckets, Listing, Objects, buckets_of
from velro.verify.objects import beside
from velro.verify.report import Report
from velro.verify.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.object_store.settings import S3Settings
    from shared.settings import LogSettings
    from velro.verify.progress import Progress


@dataclass(frozen=True, slots=True)
class Places:
    """Where the three are.

    Attributes:
        dsns: of the read models' databases, in the order of `read_models.NAMES`.
        bucket: None leaves the buckets out.
        not_media: prefixes in the bucket under which Velro keeps something else.
    """

    log: LogSettings
    dsns: Sequence[str]
    bucket: S3Settings | None
    not_media: tuple[str, ...] = (f"{PROBE_PREFIX}/",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to verify.

    Attributes:
        only: these generations and their folders in the bucket, instead of everything.
        deep: read the bytes of every stored object.
        grace_s: an object that no event speaks of is no orphan while it is younger than this.
        processes: at most so many read the log at once.
    """

    only: tuple[str, ...] = ()
    deep: bool = False
    grace_s: float = 3600.0
    processes: int = field(default_factory=processes_worth_having)


async def verify(
    places: Places, wanted: Wanted, *, tell: Callable[[Progress], None] = lambda _: None
) -> Report:
    """Compare the three and say what is wrong. Changes nothing; safe beside running services.

    Rows are those of one moment, and the log is read as far as they hold it, so that nothing that
    happens meanwhile looks like a difference. Whatever seems wrong is judged a second time, by its
    generation's whole history.

    Raises:
        NotReadable, LogUnavailable, StoreFailed: one of the three cannot be read.
        LogMismatch: the log is not the one that is in the tables.
        SchemaOutdated: the tables are those of another version.
        NothingKnown: a generation that was asked for is in neither.
    """
    began = time.monotonic()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="velro-verify-") as name:
        room = Path(name)
        async with AsyncExitStack() as stack:
            log = await stack.enter_async_context(log_of(places.log))
            rows = Rows(places.log, log, places.dsns, room, report, tell, wanted.processes)
            if places.bucket is None:
                await rows.compare(wanted.only)
            else:
                buckets = await stack.enter_async_context(buckets_of(places.bucket))
                await _three(rows, buckets, places.not_media, wanted)
    report.took_s = time.monotonic() - began
    return report


async def _three(rows: Rows, buckets: Buckets, not_media: tuple[str, ...], wanted: Wanted) -> None:
    with beside(rows.room / "beside.sqlite") as both:
        listing = Listing(both, buckets, rows.report, not_media, rows.tell)
        if wanted.only:
            said = await rows.compare(wanted.only)
        else:
            # The bucket's service lists while this side folds.
            said, _ = await together(rows.compare(()), listing.list(buckets.own))
            assert said is not None
        both.take_over(said.parts)
        for bucket in {buckets.own, *both.buckets()} - listing.listed.keys():
            for folder in said.folders or ("",):
                await listing.list(bucket, folder)
        objects = Objects(rows.log, buckets, both, rows.report, rows.tell)
        await objects.judge(listing.listed, deep=wanted.deep, grace_s=wanted.grace_s)
