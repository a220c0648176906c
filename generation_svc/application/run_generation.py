"""Take one generation from request to end. Safe to start again at any moment, anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from generation_svc.application.provider import (
    Pending,
    ProviderRequest,
    ProviderUnavailable,
    ResultGone,
    Submission,
    SubmitOutcomeUnknown,
    SubmitRefused,
    SubmitTryLater,
)
from generation_svc.domain.commands import Fail, RecordSubmitted, StartSubmission
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.domain.state import Absent, Done, Requested, Running, Submitting
from shared.contracts.events import GenerationCancelled
from shared.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from generation_svc.application.deciding import Decider
    from generation_svc.application.finish_generation import FinishGeneration
    from generation_svc.application.provider import Provider
    from shared.contracts.events import GenerationRequested, GenerationSubmitted

log = structlog.get_logger()


class UnknownProvider(Refused):
    """The request names a provider that this service is not set up for."""


class Pause(Protocol):
    """Waits, or ends the run where the service is shutting down."""

    async def __call__(self, seconds: float) -> None:
        """Wait that long.

        Raises:
            TryLater: the service is shutting down; the run goes on where it is started again.
        """
        ...


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Paid call `attempt` was certainly not taken, so the next one is no second bill."""

    attempt: int
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How patient a run is.

    Attributes:
        first_poll_s: the wait before the first poll and the smallest between two.
        longest_poll_s: the wait that polling backs off to.
        max_run_s: after this long at the provider the generation is given up as timed out.
        unknown_wait_s: how long a webhook may take to tell what became of a paid call whose
            answer was lost, before the call is made again.
        max_submissions: paid calls at the most.
        tolerated_poll_failures: polls without a usable answer, one after the other.
    """

    first_poll_s: float = 1.0
    longest_poll_s: float = 15.0
    max_run_s: float = 3600.0
    unknown_wait_s: float = 600.0
    max_submissions: int = 5
    tolerated_poll_failures: int = 8

    def poll_wait_s(self, polls: int) -> float:
        """How long to wait after that many polls: half as long again each time."""
        return min(self.longest_poll_s, self.first_poll_s * 1.5**polls)

    def resubmit_wait_s(self, refused: NotTaken) -> float:
        """How long to wait after a paid call that was certainly not taken."""
        return max(
            refused.retry_after_s or 0.0, min(60.0, self.first_poll_s * 2.0**refused.attempt)
        )


@dataclass(frozen=True, slots=True)
class RunGeneration:
    """Runs generations; holds what all runs share."""

    decider: Decider
    finish: FinishGeneration
    providers: Mapping[str, Provider]
    webhook_url: Callable[[str, str], str | None]
    policy: RunPolicy
    pause: Pause

    async def __call__(self, generation_id: str) -> None:
        """Run it until it is completed, failed or cancelled.

        Raises:
            TryLater: interrupted; the log holds how far it came.
            Refused: it cannot be run here (no such provider, no such generation).
        """
        polls = failures = 0
        refused: NotTaken | None = None
        while True:
            state = (await self.decider.load(generation_id)).state
            match state:
                case Absent():
                    raise UnknownGeneration(f"there is no generation {generation_id}")
                case Done():
                    await self._stop_cancelled_work(state)
                    return
                case Requested():
                    refused = await self._submit(generation_id, state.request, attempt=1)
                case Submitting(attempt=attempt) if refused and refused.attempt == attempt:
                    await self.pause(self.policy.resubmit_wait_s(refused))
                    refused = await self._submit_again(generation_id, state)
                case Submitting():
                    refused = await self._await_webhook(generation_id, state)
                case Running():
                    await self.pause(self.policy.poll_wait_s(polls))
                    polls += 1
                    try:
                        await self._poll(generation_id, state)
                        failures = 0
                    except ProviderUnavailable:
                        failures += 1
                        if failures > self.policy.tolerated_poll_failures:
                            raise

    async def _submit(
        self, generation_id: str, request: GenerationRequested, *, attempt: int
    ) -> NotTaken | None:
        """Make one paid call, and keep what came of it."""
        provider = self._provider(request.provider)
        announced = await self.decider.handle(generation_id, StartSubmission(attempt))
        if not announced.new:
            return None
        submission = Submission(
            generation_id=generation_id,
            model=request.model,
            input=request.input,
            webhook_url=self.webhook_url(request.provider, generation_id),
        )
        try:
            taken = await provider.submit(submission)
        except SubmitRefused as refused:
            await self._fail(generation_id, refused.code, refused.detail, billed=refused.billed)
        except SubmitTryLater as later:
            log.info("submission_not_taken", generation_id=generation_id, why=str(later))
            return NotTaken(attempt, later.retry_after_s)
        except SubmitOutcomeUnknown as unknown:
            log.warning(
                "submission_outcome_unknown",
                generation_id=generation_id,
                attempt=attempt,
                why=str(unknown),
            )
        else:
            await self._record_submitted(generation_id, provider, taken, attempt=attempt)
        return None

    async def _record_submitted(
        self, generation_id: str, provider: Provider, taken: ProviderRequest, *, attempt: int
    ) -> None:
        command = RecordSubmitted(
            attempt=attempt,
            request_id=taken.request_id,
            status_url=taken.status_url,
            response_url=taken.response_url,
            cancel_url=taken.cancel_url,
        )
        decided = await self.decider.handle(generation_id, command)
        match decided.state:
            case Done(outcome=GenerationCancelled(), submitted=None):
                # Cancelled while the paid call was on its way: only this run knows whom to tell.
                await provider.cancel(taken)
            case _:
                return

    async def _submit_again(self, generation_id: str, state: Submitting) -> NotTaken | None:
        if state.attempt < self.policy.max_submissions:
            return await self._submit(generation_id, state.request, attempt=state.attempt + 1)
        detail = f"the provider did not take it in {state.attempt} attempts"
        await self._fail(generation_id, "not_submitted", detail, retryable=True)
        return None

    async def _await_webhook(self, generation_id: str, state: Submitting) -> NotTaken | None:
        """Nobody knows whether the paid call was taken. Its webhook would tell; wait for it."""
        until = state.started_at + timedelta(seconds=self.policy.unknown_wait_s)
        left_s = (until - self.decider.clock()).total_seconds()
        if left_s > 0:
            await self.pause(min(left_s, self.policy.first_poll_s))
            return None
        log.warning("submitting_again", generation_id=generation_id, attempt=state.attempt + 1)
        return await self._submit_again(generation_id, state)

    async def _poll(self, generation_id: str, state: Running) -> None:
        provider = self._provider(state.request.provider)
        request = _named(state.submitted)
        try:
            progress = await provider.poll(request)
        except ResultGone as gone:
            await self._fail(generation_id, "result_gone", str(gone), request_id=request.request_id)
            return
        if not isinstance(progress, Pending):
            await self.finish(
                generation_id, progress, request_id=request.request_id, traits=provider.traits
            )
            return
        given_up_at = state.submitted_at + timedelta(seconds=self.policy.max_run_s)
        if self.decider.clock() >= given_up_at:
            await provider.cancel(request)
            detail = f"the provider had no result after {self.policy.max_run_s:g} s"
            await self._fail(
                generation_id, "timed_out", detail, request_id=request.request_id, retryable=True
            )

    async def _fail(
        self,
        generation_id: str,
        code: str,
        detail: str,
        *,
        request_id: str | None = None,
        retryable: bool = False,
        billed: bool | None = None,
    ) -> None:
        command = Fail(request_id, code, detail, retryable, billed)
        await self.decider.handle(generation_id, command)

    async def _stop_cancelled_work(self, state: Done) -> None:
        match state:
            case Done(request=request, submitted=submitted, outcome=GenerationCancelled()) if (
                request is not None and submitted is not None
            ):
                await self._provider(request.provider).cancel(_named(submitted))
            case Done():
                return

    def _provider(self, name: str) -> Provider:
        try:
            return self.providers[name]
        except KeyError:
            raise UnknownProvider(
                f"no provider {name!r} is set up here; there are: {', '.join(self.providers)}"
            ) from None


def _named(submitted: GenerationSubmitted) -> ProviderRequest:
    return ProviderRequest(
        request_id=submitted.request_id,
        status_url=submitted.status_url,
        response_url=submitted.response_url,
        cancel_url=submitted.cancel_url,
    )
