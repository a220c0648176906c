"""Take one generation from request to end. Safe to start again at any moment, anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

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
from generation_svc.application.run_policy import NotTaken, OutcomeUnknown, RunPolicy
from generation_svc.domain.commands import Fail, RecordSubmitted, StartSubmission
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.domain.state import (
    Absent,
    Done,
    Requested,
    Running,
    State,
    Submitting,
    is_unwanted,
)
from shared.contracts.events import GenerationFailed
from shared.errors import Conflict, Refused, TryLater

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from generation_svc.application.deciding import Decided, Decider
    from generation_svc.application.finish_generation import FinishGeneration
    from generation_svc.application.provider import Provider
    from generation_svc.domain.commands import Command
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


def new_claim() -> str:
    """What one announcement of one paid call is told from any other by."""
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class RunGeneration:
    """Runs generations; holds what all runs share."""

    decider: Decider
    finish: FinishGeneration
    providers: Mapping[str, Provider]
    webhook_url: Callable[[str, str], str | None]
    pause: Pause
    policy: RunPolicy = field(default_factory=RunPolicy)
    new_claim: Callable[[], str] = new_claim

    async def __call__(self, generation_id: str) -> None:
        """Run it until it is completed, failed or cancelled.

        Raises:
            TryLater, Conflict: interrupted; the log holds how far it came.
            Refused: it cannot be run here (no such provider, no such generation).
        """
        polls = failures = 0
        last_call: NotTaken | OutcomeUnknown | None = None
        while True:
            state = (await self.decider.load(generation_id)).state
            match state:
                case Absent():
                    raise UnknownGeneration(f"there is no generation {generation_id}")
                case Done():
                    await self._stop_unwanted_work(state)
                    return
                case Requested():
                    last_call = await self._submit(generation_id, state.request, attempt=1)
                case Submitting(attempt=attempt):
                    match last_call:
                        case NotTaken(attempt=refused) if refused == attempt:
                            last_call = await self._call_again(generation_id, state, last_call)
                        case _:
                            last_call = await self._await_webhook(generation_id, state, last_call)
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
    ) -> NotTaken | OutcomeUnknown | None:
        """Make one paid call, and keep what came of it."""
        provider = self._provider(request.provider)
        announcement = StartSubmission(attempt, self.new_claim())
        announced = await self._insist(generation_id, announcement, for_s=self.policy.claim_holds_s)
        if not self._is_ours(announced.state, announcement):
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
            command = Fail(
                None, refused.code, refused.detail, retryable=False, billed=refused.billed
            )
            await self._insist(generation_id, command, for_s=self.policy.unknown_wait_s)
        except SubmitTryLater as later:
            log.info(
                "submission_not_taken", generation_id=generation_id, attempt=attempt, why=str(later)
            )
            return NotTaken(attempt, later.retry_after_s, str(later))
        except SubmitOutcomeUnknown as unknown:
            return _outcome_unknown(generation_id, attempt, why=str(unknown))
        else:
            await self._record_submitted(generation_id, taken, attempt=attempt)
        return None

    def _is_ours(self, state: State, announcement: StartSubmission) -> bool:
        """Whether the log holds the announcement, and as this run wrote it: then, and only then,
        is there nobody else who could make the call.
        """  # noqa: D205 - one sentence, longer than a line
        match state:
            case Submitting(claim=claim) if claim == announcement.claim:
                return self._age_s(state) < self.policy.claim_holds_s
            case _:
                return False

    async def _record_submitted(
        self, generation_id: str, taken: ProviderRequest, *, attempt: int
    ) -> None:
        command = RecordSubmitted(
            attempt=attempt,
            request_id=taken.request_id,
            status_url=taken.status_url,
            response_url=taken.response_url,
            cancel_url=taken.cancel_url,
        )
        try:
            await self._insist(generation_id, command, for_s=self.policy.unknown_wait_s)
        except (TryLater, Conflict):
            # It was paid for and nobody else knows its name.
            log.error(  # noqa: TRY400 - the error is no news, what was lost is
                "submission_not_recorded",
                generation_id=generation_id,
                attempt=attempt,
                request_id=taken.request_id,
                status_url=taken.status_url,
            )
            raise

    async def _insist(self, generation_id: str, command: Command, *, for_s: float) -> Decided:
        """Decide a command that only this run can give, also when the log is away for a while."""
        until = self.decider.clock() + timedelta(seconds=for_s)
        while True:
            try:
                return await self.decider.handle(generation_id, command)
            except (TryLater, Conflict) as error:
                if self.decider.clock() >= until:
                    raise
                log.info("log_awaited", generation_id=generation_id, why=str(error))
            await self.pause(self.policy.first_poll_s)

    async def _call_again(
        self, generation_id: str, state: Submitting, last_call: NotTaken | OutcomeUnknown
    ) -> NotTaken | OutcomeUnknown | None:
        why = last_call.why if isinstance(last_call, NotTaken) else "its answers were lost"
        if state.attempt >= self.policy.max_submissions:
            detail = f"the provider did not take it in {state.attempt} attempts: {why}"
            await self._fail(generation_id, "not_submitted", detail, retryable=True)
            return None
        if isinstance(last_call, NotTaken):
            await self.pause(self.policy.resubmit_wait_s(last_call))
        return await self._submit(generation_id, state.request, attempt=state.attempt + 1)

    async def _await_webhook(
        self, generation_id: str, state: Submitting, last_call: NotTaken | OutcomeUnknown | None
    ) -> NotTaken | OutcomeUnknown | None:
        """Nobody knows whether the paid call was taken. Its webhook would tell; wait for it."""
        age_s = self._age_s(state)
        known = last_call == OutcomeUnknown(state.attempt)
        if not known and self.policy.answer_is_lost(age_s):
            why = "the run that made the call ended without its answer"
            last_call = _outcome_unknown(generation_id, state.attempt, why=why)
        left_s = self.policy.unknown_wait_s - age_s
        if left_s > 0:
            await self.pause(min(left_s, self.policy.first_poll_s))
            return last_call
        return await self._call_again(generation_id, state, OutcomeUnknown(state.attempt))

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
            await self._give_up(generation_id, provider, request)

    async def _give_up(
        self, generation_id: str, provider: Provider, request: ProviderRequest
    ) -> None:
        detail = f"the provider had no result after {self.policy.max_run_s:g} s"
        decided = await self._fail(
            generation_id, "timed_out", detail, request_id=request.request_id, retryable=True
        )
        match decided.state:
            case Done(outcome=GenerationFailed()):
                try:
                    await provider.cancel(request)
                except ProviderUnavailable as error:
                    # The end does not depend on it: there is nothing left to wait for.
                    log.warning(
                        "given_up_and_not_stopped",
                        generation_id=generation_id,
                        request_id=request.request_id,
                        why=str(error),
                    )
            case _:
                return  # its result came in just now

    async def _fail(
        self,
        generation_id: str,
        code: str,
        detail: str,
        *,
        request_id: str | None = None,
        retryable: bool = False,
    ) -> Decided:
        command = Fail(request_id, code, detail, retryable, billed=None)
        return await self.decider.handle(generation_id, command)

    async def _stop_unwanted_work(self, state: Done) -> None:
        match state:
            case Done(request=request, submitted=submitted) if request and submitted:
                if is_unwanted(submitted.request_id, state):
                    await self._provider(request.provider).cancel(_named(submitted))
            case _:
                return

    def _age_s(self, state: Submitting) -> float:
        return (self.decider.clock() - state.started_at).total_seconds()

    def _provider(self, name: str) -> Provider:
        try:
            return self.providers[name]
        except KeyError:
            raise UnknownProvider(
                f"no provider {name!r} is set up here; there are: {', '.join(self.providers)}"
            ) from None


def _outcome_unknown(generation_id: str, attempt: int, *, why: str) -> OutcomeUnknown:
    # One line a run and lost answer, whoever waits for the webhook after a restart says it again:
    # what is counted is pairs of generation and attempt.
    log.warning("submission_outcome_unknown", generation_id=generation_id, attempt=attempt, why=why)
    return OutcomeUnknown(attempt)


def _named(submitted: GenerationSubmitted) -> ProviderRequest:
    return ProviderRequest(
        request_id=submitted.request_id,
        status_url=submitted.status_url,
        response_url=submitted.response_url,
        cancel_url=submitted.cancel_url,
    )
