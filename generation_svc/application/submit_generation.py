"""Hand one generation to its provider: announced in the log first, paid for once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from generation_svc.application.provider import (
    ProviderRequest,
    Submission,
    SubmitOutcomeUnknown,
    SubmitRefused,
    SubmitTryLater,
)
from generation_svc.application.run_policy import NotTaken, OutcomeUnknown, RunPolicy
from generation_svc.domain.commands import Fail, RecordSubmitted, StartSubmission
from generation_svc.domain.state import State, Submitting
from shared.errors import Conflict, TryLater

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation_svc.application.deciding import Decided, Decider
    from generation_svc.application.provider import Provider
    from generation_svc.domain.commands import Command
    from shared.contracts.generation_events import GenerationRequested

log = structlog.get_logger()


class Pause(Protocol):
    """Waits, or ends the run where the service is shutting down."""

    async def __call__(self, seconds: float) -> None:
        """Wait that long.

        Raises:
            TryLater: the service is shutting down; the run goes on where it is started again.
        """
        ...


@dataclass(frozen=True, slots=True)
class SubmitGeneration:
    """Makes paid calls, one after the other, until one is taken or none is to be made any more."""

    decider: Decider
    provider: Callable[[str], Provider]
    webhook_url: Callable[[str, str], str | None]
    pause: Pause
    policy: RunPolicy
    new_claim: Callable[[], str]

    async def first(
        self, generation_id: str, request: GenerationRequested
    ) -> NotTaken | OutcomeUnknown | None:
        """Make the first call; what is known of it where it did not settle anything."""
        return await self._call(generation_id, request, StartSubmission(1, self.new_claim()))

    async def further(
        self, generation_id: str, state: Submitting, last_call: NotTaken | OutcomeUnknown | None
    ) -> NotTaken | OutcomeUnknown | None:
        """Go on after a call that is not settled: wait, call again, or give up.

        Args:
            generation_id: which.
            state: of the generation.
            last_call: what this run knows of its own last call.
        """
        match last_call:
            case NotTaken(attempt=attempt) if attempt == state.attempt:
                return await self._after_refusal(generation_id, state, last_call)
            case _:
                return await self._await_webhook(generation_id, state, last_call)

    async def _call(
        self, generation_id: str, request: GenerationRequested, announcement: StartSubmission
    ) -> NotTaken | OutcomeUnknown | None:
        """Make one paid call, and keep what came of it."""
        provider = self.provider(request.provider)
        attempt = announcement.attempt
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

    async def _after_refusal(
        self, generation_id: str, state: Submitting, refused: NotTaken
    ) -> NotTaken | OutcomeUnknown | None:
        """The call was not taken, so the next one costs nothing more: until time is over."""
        passed_s = (self.decider.clock() - state.first_at).total_seconds()
        wait_s = self.policy.resubmit_wait_s(refused)
        not_taken = state.not_taken + 1
        if passed_s + wait_s > self.policy.max_run_s:
            await self._give_up(generation_id, state, not_taken, refused)
            return None
        await self.pause(wait_s)
        return await self._call_again(generation_id, state, not_taken)

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
        if state.attempt - state.not_taken >= self.policy.max_submissions:
            await self._give_up(generation_id, state, state.not_taken, None)
            return None
        return await self._call_again(generation_id, state, state.not_taken)

    async def _call_again(
        self, generation_id: str, state: Submitting, not_taken: int
    ) -> NotTaken | OutcomeUnknown | None:
        announcement = StartSubmission(state.attempt + 1, self.new_claim(), not_taken)
        return await self._call(generation_id, state.request, announcement)

    async def _give_up(
        self, generation_id: str, state: Submitting, not_taken: int, refused: NotTaken | None
    ) -> None:
        """Say in the log that no call is made any more, and what that may have cost."""
        perhaps_taken = state.attempt - not_taken
        unknown = f"the answers to {perhaps_taken} paid calls were lost, and no report came of them"
        if refused is None:
            code, detail = "outcome_unknown", unknown
        else:
            code = "not_submitted"
            detail = f"the provider did not take it in {state.attempt} attempts: {refused.why}"
            if refused.retry_after_s:
                detail += f"; it asks to be left alone for {refused.retry_after_s:g} s"
            if perhaps_taken:
                detail += f"; {unknown}"
        command = Fail(
            None,
            code,
            detail,
            retryable=True,
            billed=None if perhaps_taken else False,
            given_up=perhaps_taken > 0,
        )
        await self._insist(generation_id, command, for_s=self.policy.unknown_wait_s)

    def _age_s(self, state: Submitting) -> float:
        return (self.decider.clock() - state.started_at).total_seconds()


def _outcome_unknown(generation_id: str, attempt: int, *, why: str) -> OutcomeUnknown:
    # One line a run and lost answer, whoever waits for the webhook after a restart says it again:
    # what is counted is pairs of generation and attempt.
    log.warning("submission_outcome_unknown", generation_id=generation_id, attempt=attempt, why=why)
    return OutcomeUnknown(attempt)
