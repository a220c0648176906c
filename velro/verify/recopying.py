"""Copying again what the log says is stored and the bucket does not have as it should be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.contracts.generation_events import GenerationCompleted, LinksRenewed
from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed, CopyOrder
from storage_svc.application.recording import Recorder
from storage_svc.domain.commands import RecordObjectLost
from storage_svc.domain.policies import Cause, cause_of
from storage_svc.domain.state import Kept, Stored
from velro.verify.judging import history

if TYPE_CHECKING:
    from shared.contracts.facts import StoredObject
    from shared.event_log.port import EventLog
    from shared.media.copying import Copier
    from shared.object_store.port import ObjectStore

SOURCE = "velro/verify"
_NO_TYPE = "application/octet-stream"


def now() -> datetime:
    """The clock of what is recorded here."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Recopying:
    """Brings bytes back from links.

    The same bytes come to the same key, so the log needs no word of it: it says what is true again.
    Where no link gives them any more, the log is told that the object is lost.
    """

    log: EventLog
    store: ObjectStore
    copier: Copier

    async def copy(self, generation_id: str, index: int) -> tuple[bool, str]:
        """Whether the object is as it should be now, and a sentence on it.

        Raises:
            LogUnavailable, StoreFailed: no answer; nothing is known of it.
        """
        loaded = await Recorder(self.log, clock=now, source=SOURCE).load(generation_id)
        kept = loaded.state
        output = kept.outputs.get(index) if isinstance(kept, Kept) else None
        if not isinstance(kept, Kept) or not isinstance(output, Stored):
            return True, "the log does not say any more that it is stored"
        wanted = output.object
        if await self._is_right(wanted):
            return True, "it is as it should be by now"
        order = await self._order(generation_id, index, kept, wanted)
        try:
            copied = await self.copier.copy(order)
            if not _same(copied, wanted):
                if copied.key != wanted.key:
                    await self.store.delete(copied.key)
                return await self._record_lost(
                    generation_id,
                    index,
                    wanted,
                    ReasonCode.CHECKSUM_MISMATCH,
                    "its link gives other bytes than those that were stored",
                )
            if not await self._is_right(wanted):
                # It is there by its size and by what is written beside it, so it was not sent
                # again. The link has just given the right bytes.
                await self.store.delete(wanted.key)
                await self.copier.copy(order)
        except CopyFailed as error:
            return await self._failed(generation_id, index, wanted, order, error)
        return True, "copied again from its link"

    async def _failed(
        self,
        generation_id: str,
        index: int,
        wanted: StoredObject,
        order: CopyOrder,
        error: CopyFailed,
    ) -> tuple[bool, str]:
        """What to do without a copy: say that it is lost, unless another try may help."""
        match cause_of(error.reason):
            case Cause.CONTENT | Cause.GONE:
                lost = True
            case Cause.SOURCE | Cause.SETTINGS | Cause.COPY:
                lost = now() >= order.dies_at
            case Cause.BUCKET:
                lost = False
        if not lost:
            return False, f"it could not be copied again: {error}; try again later"
        return await self._record_lost(generation_id, index, wanted, error.reason, str(error))

    async def _record_lost(
        self, generation_id: str, index: int, wanted: StoredObject, reason: ReasonCode, why: str
    ) -> tuple[bool, str]:
        detail = f"it is not in the bucket as it was stored, and its link does not help: {why}"
        recorder = Recorder(self.log, clock=now, source=SOURCE)
        await recorder.record(generation_id, RecordObjectLost(index, wanted.key, reason, detail))
        return True, f"recorded as lost: {why}"

    async def _is_right(self, wanted: StoredObject) -> bool:
        head = await self.store.head(wanted.key)
        if (
            head is None
            or head.size_bytes != wanted.size_bytes
            or head.media_type != wanted.media_type
        ):
            return False
        digest = hashlib.sha256()
        async for piece in self.store.read(wanted.key):
            digest.update(piece)
        return digest.hexdigest() == wanted.sha256

    async def _order(
        self, generation_id: str, index: int, kept: Kept, wanted: StoredObject
    ) -> CopyOrder:
        """What to copy, by the newest link that anybody gave."""
        source_url, dies_at, media_type = "", now(), wanted.media_type
        for recorded in await history(self.log, generation_id):
            match recorded.envelope.data:
                case GenerationCompleted(outputs=outputs) if index < len(outputs):
                    source_url, dies_at = outputs[index].source_url, outputs[index].expires_at
                case LinksRenewed(links=links):
                    for link in links:
                        if link.index == index:
                            source_url, dies_at = link.source_url, link.expires_at
                case _:
                    pass
        return CopyOrder(
            generation_id=generation_id,
            output_index=index,
            user_id=kept.completed.user_id,
            provider=kept.completed.provider,
            source_url=source_url,
            media_type=media_type,
            dies_at=dies_at,
            as_is=wanted.media_type == _NO_TYPE,
        )


def _same(copied: StoredObject, wanted: StoredObject) -> bool:
    return (copied.bucket, copied.key, copied.sha256) == (wanted.bucket, wanted.key, wanted.sha256)
