"""The buckets beside the log: what is missing, what is other, what nobody speaks of."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.storage_events import MediaStored
from shared.event_log.port import CorruptRecord
from shared.object_store.keys import is_object_key
from shared.object_store.port import StoreFailed
from shared.object_store.s3 import s3_object_store
from velro.verify.findings import Finding, Kind, UnreadableBucket
from velro.verify.judging import history
from velro.verify.objects import Kept, Listed
from velro.verify.progress import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

    from shared.contracts.envelope import Recorded
    from shared.contracts.facts import StoredObject
    from shared.event_log.port import EventLog
    from shared.object_store.port import ObjectStore
    from shared.object_store.settings import S3Settings
    from velro.verify.objects import Beside
    from velro.verify.report import Report

# Between the bucket's clock and the log's.
_SLACK_S: Final = 60.0
_AT_ONCE: Final = 16
# Anything else has no subject in the log.
GENERATION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Buckets:
    """The bucket of the settings, and others of the same service that events name."""

    def __init__(self, settings: S3Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._stores: dict[str, ObjectStore] = {}

    @property
    def own(self) -> str:
        """The bucket of the settings."""
        return self._settings.bucket

    async def store(self, bucket: str) -> ObjectStore:
        """One of them; it may not exist, nor let us in."""
        if bucket not in self._stores:
            settings = self._settings.model_copy(update={"bucket": bucket})
            self._stores[bucket] = await self._stack.enter_async_context(s3_object_store(settings))
        return self._stores[bucket]


@asynccontextmanager
async def buckets_of(settings: S3Settings) -> AsyncGenerator[Buckets]:
    """All buckets of one service; connections are closed at the end."""
    async with AsyncExitStack() as stack:
        yield Buckets(settings, stack)


@dataclass(slots=True)
class Listing:
    """Writes down what buckets hold under names of ours.

    Attributes:
        beside: where it is written.
        not_media: prefixes under which Velro keeps something else.
        report: counts what there is.
        listed: by bucket, why it cannot be read, or None.
    """

    beside: Beside
    buckets: Buckets
    report: Report
    not_media: tuple[str, ...]
    tell: Callable[[Progress], None]
    listed: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    seen: int = 0

    async def list(self, bucket: str, prefix: str = "") -> None:
        """List one bucket, or one folder in it."""
        store = await self.buckets.store(bucket)
        try:
            async with aclosing(store.pages(prefix)) as pages:
                async for page in pages:
                    media = [one for one in page if not one.key.startswith(self.not_media)]
                    ours = [one for one in media if is_object_key(one.key)]
                    self.beside.add_listed(
                        Listed(bucket, one.key, one.size_bytes, one.modified_at.timestamp())
                        for one in ours
                    )
                    self.report.objects += len(ours)
                    self.report.foreign += len(media) - len(ours)
                    self.seen += len(page)
                    self.tell(Progress("objects listed", self.seen))
        except StoreFailed as error:
            self.listed[bucket] = str(error)
        else:
            self.listed.setdefault(bucket, None)


class Objects:
    """Judges objects by the bucket's own word on each, and orphans by the log as it is now."""

    def __init__(
        self,
        log: EventLog,
        buckets: Buckets,
        beside: Beside,
        report: Report,
        tell: Callable[[Progress], None],
    ) -> None:
        self._log = log
        self._buckets = buckets
        self._beside = beside
        self._report = report
        self._tell = tell
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._looked_at = 0

    async def judge(self, listed: Mapping[str, str | None], *, deep: bool, grace_s: float) -> None:
        """Add to the report what is wrong.

        Args:
            listed: by bucket, why it could not be listed, or None.
            deep: read the bytes of every object.
            grace_s: an object younger than this may be one whose event is about to be written.

        Raises:
            StoreFailed: a bucket that could be listed gave no answer any more.
            LogUnavailable: no answer.
        """
        outputs = self._beside.buckets()
        self._report.unreadable += [
            UnreadableBucket(bucket, outputs.get(bucket, 0), why)
            for bucket, why in listed.items()
            if why is not None
        ]
        readable = json.dumps([bucket for bucket, why in listed.items() if why is None])
        await self._each(self._beside.pages("missing", readable=readable), self._by_its_word)
        await self._each(self._beside.pages("different"), self._by_its_word)
        if deep:
            await self._each(self._beside.pages("present"), self._by_its_bytes)
        else:
            rewritten = self._beside.pages("rewritten", slack_s=_SLACK_S)
            await self._each(rewritten, self._by_its_word)
        await self._orphans(time.time() - grace_s)

    async def _each(
        self,
        pages: Iterable[list[Kept]],
        judged: Callable[[Kept], Awaitable[Finding | None]],
    ) -> None:
        async def one(kept: Kept) -> Finding | None:
            async with self._asking:
                return await judged(kept)

        for page in pages:
            found = await asyncio.gather(*(one(kept) for kept in page))
            self._report.add(finding for finding in found if finding is not None)
            self._looked_at += len(page)
            self._tell(Progress("objects looked at one by one", self._looked_at))

    async def _by_its_word(self, kept: Kept) -> Finding | None:
        head = await (await self._buckets.store(kept.bucket)).head(kept.key)
        if head is None:
            return _finding(kept, Kind.OBJECT_MISSING, "it is not in the bucket")
        if head.size_bytes != kept.size_bytes:
            said = f"{head.size_bytes:,} bytes instead of {kept.size_bytes:,}"
            return _finding(kept, Kind.OBJECT_DIFFERS, said)
        if head.sha256 is None:
            # Stored by somebody who writes no hash beside it: only the bytes can tell.
            return await self._by_its_bytes(kept)
        if head.sha256 != kept.sha256:
            said = f"its hash is said to be {head.sha256} instead of {kept.sha256}"
            return _finding(kept, Kind.OBJECT_DIFFERS, said)
        return _of_another_type(kept, head.media_type)

    async def _by_its_bytes(self, kept: Kept) -> Finding | None:
        store = await self._buckets.store(kept.bucket)
        head = await store.head(kept.key)
        if head is None or head.size_bytes != kept.size_bytes:
            return await self._by_its_word(kept)
        digest = hashlib.sha256()
        async for piece in store.read(kept.key):
            digest.update(piece)
        self._report.read_deep += 1
        if (found := digest.hexdigest()) != kept.sha256:
            said = f"the hash of its bytes is {found} instead of {kept.sha256}"
            return _finding(kept, Kind.OBJECT_DIFFERS, said)
        return _of_another_type(kept, head.media_type)

    async def _orphans(self, born_before: float) -> None:
        for page in self._beside.unclaimed():
            old = [one for one in page if one.modified_at <= born_before]
            self._report.young += len(page) - len(old)
            found = await asyncio.gather(*(self._orphan(one) for one in old))
            self._report.add(finding for finding in found if finding is not None)

    async def _orphan(self, listed: Listed) -> Finding | None:
        generation_id = listed.key.split("/")[1]
        events: list[Recorded] = []
        if GENERATION_ID.fullmatch(generation_id):
            async with self._asking:
                try:
                    events = await history(self._log, generation_id)
                except CorruptRecord:
                    return None  # what cannot be read may speak of it
        if (listed.bucket, listed.key) in spoken_of(events):
            return None
        return Finding(
            Kind.OBJECT_ORPHANED,
            f"{listed.size_bytes:,} bytes that no event speaks of",
            generation_id=generation_id if events else None,
            bucket=listed.bucket,
            key=listed.key,
        )


def _of_another_type(kept: Kept, media_type: str) -> Finding | None:
    if media_type == kept.media_type:
        return None
    said = f"it is served as {media_type or 'nothing'} instead of {kept.media_type}"
    return _finding(kept, Kind.OBJECT_DIFFERS, said)


def _finding(kept: Kept, kind: Kind, said: str) -> Finding:
    return Finding(
        kind,
        said,
        generation_id=kept.generation_id,
        bucket=kept.bucket,
        key=kept.key,
        output_index=kept.output_index,
    )


def spoken_of(events: Iterable[Recorded]) -> set[tuple[str, str]]:
    """The objects that events have ever said to be stored, by bucket and key."""

    def said(recorded: Recorded) -> list[StoredObject]:
        match recorded.envelope.data:
            case MediaStored(object=stored):
                return [stored]
            case GenerationCompleted(outputs=outputs):
                return [output.stored for output in outputs if output.stored is not None]
            case _:
                return []

    return {(stored.bucket, stored.key) for event in events for stored in said(event)}
