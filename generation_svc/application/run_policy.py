"""How patient a run is. Pure: how long it has been comes in, how long to wait comes out."""

from __future__ import annotations

from dataclasses import dataclass

# Powers beyond these are past every limit here, and past what a float can hold in the end.
_MAX_POLL_EXPONENT = 64
_MAX_RESUBMIT_EXPONENT = 32


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Paid call `attempt` was certainly not taken, so the next one is no second bill."""

    attempt: int
    retry_after_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """Paid call `attempt` was perhaps taken; only its webhook can tell."""

    attempt: int


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How patient a run is.

    Attributes:
        first_poll_s: the wait before the first poll and the smallest between two.
        longest_poll_s: the wait that polling backs off to.
        max_run_s: after this long at the provider, or without it, the generation is given up; and
            so is one that the provider has not taken for so long. No wait that a provider asks for
            is longer either.
        call_may_take_s: an announced paid call that is older, without an answer in the log, has
            lost its answer. Longer than a provider's adapter waits for one.
        unknown_wait_s: how long a webhook may take to tell what became of a paid call whose
            answer was lost, before the call is made again.
        longest_resubmit_wait_s: the wait that calling again backs off to, where the provider does
            not ask for more.
        max_submissions: paid calls at the most, but for those that were certainly not taken.
        tolerated_poll_failures: so many polls of one run without a usable answer are no reason to
            give up, however long ago the provider took it.
    """

    first_poll_s: float = 1.0
    longest_poll_s: float = 15.0
    max_run_s: float = 3600.0
    call_may_take_s: float = 60.0
    unknown_wait_s: float = 600.0
    longest_resubmit_wait_s: float = 60.0
    max_submissions: int = 5
    tolerated_poll_failures: int = 8

    @property
    def claim_holds_s(self) -> float:
        """How long after its announcement a paid call may still be begun.

        Far enough from the moment at which another run may make the next one.
        """
        return self.unknown_wait_s / 2

    def poll_wait_s(self, polls: int) -> float:
        """How long to wait after that many polls: half as long again each time."""
        grown_s = self.first_poll_s * 1.5 ** min(polls, _MAX_POLL_EXPONENT)
        return min(self.longest_poll_s, grown_s)

    def resubmit_wait_s(self, refused: NotTaken) -> float:
        """How long to wait after a paid call that was certainly not taken."""
        grown_s = self.first_poll_s * 2.0 ** min(refused.attempt, _MAX_RESUBMIT_EXPONENT)
        asked_s = refused.retry_after_s or 0.0
        return min(self.max_run_s, max(asked_s, min(self.longest_resubmit_wait_s, grown_s)))

    def answer_is_lost(self, age_s: float) -> bool:
        """Whether a paid call announced so long ago can have no answer on its way any more."""
        return age_s >= min(self.call_may_take_s, self.unknown_wait_s)
