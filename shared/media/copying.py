"""The port to whatever copies outputs, and how it says that it could not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.contracts.reasons import ReasonCode
from shared.errors import VelroError

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.facts import StoredObject


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """One output to copy.

    A download ends no later than the moment at which its link is promised to die. Once that has
    passed it may take as long as any: a link may outlive its promise, and only asking tells.

    `as_is` stores whatever comes, as bytes of no type, which no browser runs or shows: a person
    has released it.
    """

    generation_id: str
    output_index: int
    user_id: str
    provider: str
    source_url: str
    media_type: str | None
    dies_at: datetime
    as_is: bool = False


class CopyFailed(VelroError):
    """The output was not copied.

    Attributes:
        reason: what alerts and the retry policy read.
        detail: a sentence for a person.
        retry_after_s: how long the other side asked to be left alone.
        media_type: what the bytes look like, where they are refused for that.
    """

    def __init__(
        self,
        reason: ReasonCode,
        detail: str,
        *,
        retry_after_s: float | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.media_type = media_type

    @property
    def quarantine(self) -> bool:
        """Whether a person should look at what came: the bytes are there, and are no media."""
        return self.reason is ReasonCode.MEDIA_TYPE_REFUSED


class Copier(Protocol):
    """Copies outputs from links to deterministic keys in the bucket."""

    async def copy(self, order: CopyOrder) -> StoredObject:
        """Copy and verify one output. Bounded in time. Safe to repeat, and to cancel.

        Raises:
            CopyFailed: it is not stored, with the reason.
        """
        ...
