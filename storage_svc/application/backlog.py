"""The backlog as the workers see it: what can be leased, held and given back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shared.errors import TryLater

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from shared.contracts.reasons import ReasonCode


class OutputRef(NamedTuple):
    """Names one output."""

    generation_id: str
    output_index: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One output that nobody else works on for a while.

    Attributes:
        dies_at: when its link dies, as far as anybody promised.
        attempts: how many copies have failed so far.
    """

    generation_id: str
    output_index: int
    user_id: str
    provider: str
    source_url: str
    source_host: str
    dies_at: datetime
    attempts: int

    @property
    def ref(self) -> OutputRef:
        """The output that is leased."""
        return OutputRef(self.generation_id, self.output_index)


class BacklogUnavailable(TryLater):
    """The database gave no answer; nothing was leased."""


class Backlog(Protocol):
    """Outputs that wait to be copied, the soonest death first.

    A lease says that somebody is at work, not that the work is theirs alone: it may run out
    while they are. Every method raises BacklogUnavailable where the database does not answer.
    """

    async def lease(
        self,
        *,
        owner: str,
        now: datetime,
        until: datetime,
        max_rows: int,
        closed_hosts: Collection[str] = (),
        probed_hosts: Collection[str] = (),
    ) -> list[Lease]:
        """Take outputs that are due: living links first, by death, users in turns among equals.

        Args:
            owner: who takes them: one name a process and start.
            now: decides what is due and which leases have run out.
            until: when these leases run out.
            max_rows: how many at most.
            closed_hosts: hosts that nothing is to be fetched from now.
            probed_hosts: hosts that one output each is fetched from, to find out about them: the
                least tried, since one that failed before may be at fault itself.
        """
        ...

    async def lease_generation(
        self, generation_id: str, *, owner: str, now: datetime, until: datetime
    ) -> list[Lease]:
        """Take what is pending of one generation, due or not."""
        ...

    async def renew(
        self, refs: Iterable[OutputRef], *, owner: str, until: datetime
    ) -> set[OutputRef]:
        """Hold leases longer; those that are not in the answer are not held any more."""
        ...

    async def give_back(self, refs: Iterable[OutputRef], *, owner: str) -> None:
        """Let somebody else take them at once."""
        ...

    async def release(
        self, reasons: Sequence[ReasonCode], *, failed_before: datetime, max_rows: int
    ) -> int:
        """Make due what waits after failing for one of these reasons, the soonest death first."""
        ...

    async def next_due(self) -> datetime | None:
        """When something can be taken without any news; None: nothing waits."""
        ...
