"""What the HTTP API asks of others beside the use cases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.errors import TryLater

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from generation_svc.read_model.rows import Status, StorageState
    from generation_svc.read_model.views import GenerationView, Page
    from shared.contracts.facts import StoredObject


class ReadModelUnavailable(TryLater):
    """The tables cannot be read now."""


class TooManyWatchers(TryLater):
    """As many callers watch generations as this process allows."""


class GenerationQueries(Protocol):
    """Reads the generation read model. May raise what Postgres raises when it is away."""

    async def get(self, generation_id: str) -> GenerationView | None:
        """One generation; None where the read model has none."""
        ...

    async def list_page(
        self,
        *,
        user_id: str | None,
        status: Status | None,
        storage_state: StorageState | None,
        cursor: str | None,
        limit: int,
    ) -> Page:
        """The newest generations that are like this, or those after a page's `next_cursor`.

        Raises:
            BadCursor: the cursor is none.
        """
        ...

    async def positions(self, generation_ids: Sequence[str]) -> Mapping[str, int]:
        """By which event each row last changed; without those that are not there."""
        ...


class Positions(Protocol):
    """Knows how far the read model is."""

    @property
    def position(self) -> int:
        """The last position that was heard of."""
        ...

    async def wait_for(self, position: int, *, timeout_s: float) -> None:
        """Return once the read model is there.

        Raises:
            NotReached: not before the deadline.
            TooManyWaiters: too many wait already.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """Where a reader gets a stored object; `expires_at` None: for as long as it is stored."""

    url: str
    expires_at: datetime | None = None


ObjectUrls = Callable[["StoredObject"], Awaitable[ObjectUrl]]
"""Makes a URL for a stored object, without asking the bucket for anything."""

Readiness = Callable[[], Awaitable[Mapping[str, str | None]]]
"""Each part of the service by name, with what is wrong with it; None: nothing."""
