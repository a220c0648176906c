"""One line in the program's log for what came of a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import structlog

from storage_svc.application.store_output import (
    AlreadySettled,
    AwaitsLink,
    FailedNow,
    LostNow,
    Outcome,
    StoredNow,
)

if TYPE_CHECKING:
    from storage_svc.application.backlog import Lease

_log = structlog.get_logger(__name__)


def tell(lease: Lease, outcome: Outcome | None) -> None:
    """Loud for what is lost, silent for what was settled before."""
    bound = _log.bind(
        generation_id=lease.generation_id,
        output=lease.output_index,
        attempt=lease.attempts + 1,
        dies_at=lease.dies_at.isoformat(),
    )
    match outcome:
        case StoredNow(size_bytes=size_bytes, took_s=took_s):
            bound.info("stored", size_bytes=size_bytes, took_s=round(took_s, 3))
        case FailedNow(reason=reason, detail=detail, retry_at=retry_at):
            bound.warning(
                "attempt_failed", reason=reason, detail=detail, retry_at=retry_at.isoformat()
            )
        case AwaitsLink(reason=reason, detail=detail, answer_by=answer_by, tried=True):
            bound.warning(
                "new_link_asked_for", reason=reason, detail=detail, answer_by=answer_by.isoformat()
            )
        case LostNow(reason=reason, detail=detail):
            bound.error("media_lost", reason=reason, detail=detail)
        case AwaitsLink() | AlreadySettled() | None:
            bound.debug("nothing_to_do")
        case _:
            assert_never(outcome)
