"""The port to whatever copies outputs, and how it says that it could not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.errors import VelroError

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.events import StoredObject
    from shared.contracts.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """One output to copy. `dies_at` bounds nothing by itself: a link may outlive its promise."""

    generation_id: str
    output_index: int
    user_id: str
    provider: str
    source_url: str
    media_type: str | None
    dies_at: datetime


class CopyFailed(VelroError):
    """The output was not copied.

    Attributes:
        reason: what alerts and the retry policy read.
        detail: a sentence for a person.
        retry_after_s: how long the other side asked to be left alone.
    """

    def __init__(
        self, reason: ReasonCode, detail: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


class Copier(Protocol):
    """Copies outputs from links to deterministic keys in the bucket."""

    async def copy(self, order: CopyOrder) -> StoredObject:
        """Copy and verify one output. Bounded in time. Safe to repeat, and to cancel.

        Raises:
            CopyFailed: it is not stored, with the reason.
        """
        ...
