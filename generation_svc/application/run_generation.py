"""Take one generation from request to end. Safe to start again at any moment, anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from generation_svc.application.provider import (
    Pending,
    ProviderRequest,
    ProviderUnavailable,
    ResultGone,
)
from generation_svc.application.run_policy import NotTaken, OutcomeUnknown, RunPolicy
from generation_svc.application.submit_generation import Pause, SubmitGeneration
from generation_svc.domain.commands import Fail
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.domain.state import (
    Absent,
    Done,
    Requested,
    Running,
    Submitting,
    is_unwanted,
)
from shared.contracts.generation_events import GenerationFailed
from shared.errors import Refused, TryLater

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from generation_svc.application.deciding import Decided, Decider
    from generation_svc.application.finish_generation import FinishGeneration
    from generation_svc.application.provider import Provider
    from shared.contracts.generation_events import GenerationSubmitted

log = structlog.get_logger()

UNREACHABLE = "provider_unreachable"


class UnknownProvider(Refused):
    """The request names a provider that this service is not set up for."""


class ProviderStaysAway(Refused):
    """The provider took it and has not answered since: its webhook, or a retry, still ends it."""


class StillAtWork(TryLater):
    """The provider answers again, and has no result yet."""


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
            ProviderStaysAway: given up, and worth another try when the provider is back.
        """
        submit = SubmitGeneration(
            self.decider,
            self._provider,
            self.webhook_url,
            self.pause,
            self.policy,
            self.new_claim,
        )
        polls = failures = 0
        last_call: NotTaken | OutcomeUnknown | None = None
        while True:
            state = (await self.decider.load(generation_id)).state
            match state:
                case Absent():
                    raise UnknownGeneration(f"there is no generation {generation_id}")
                case Done():
                    await self._after_the_end(generation_id, state)
                    return
                case Requested():
                    last_call = await submit.first(generation_id, state.request)
                case Submitting():
                    last_call = await submit.further(generation_id, state, last_call)
                case Running():
                    await self.pause(self.policy.poll_wait_s(polls))
                    polls += 1
                    try:
                        if await self._polled_to_the_end(generation_id, state):
                            return
                        failures = 0
                    except ProviderUnavailable as away:
                        failures += 1
                        if failures > self.policy.tolerated_poll_failures and self._is_late(state):
                            await self._give_up_unheard(generation_id, state, away)

    async def _polled_to_the_end(self, generation_id: str, state: Running) -> bool:
        """Ask once; whether the run is over because it took too long."""
        provider = self._provider(state.request.provider)
        if await self._poll(generation_id, provider, state.submitted):
            return False
        if not self._is_late(state):
            return False
        detail = f"the provider had no result after {self.policy.max_run_s:g} s"
        await self._give_up(generation_id, provider, _named(state.submitted), detail)
        return True

    async def _poll(
        self, generation_id: str, provider: Provider, submitted: GenerationSubmitted
    ) -> bool:
        """Ask for the result and keep it; whether there is an end to it."""
        request = _named(submitted)
        try:
            progress = await provider.poll(request)
        except ResultGone as gone:
            await self._fail(
                generation_id,
                Fail(request.request_id, "result_gone", str(gone), retryable=False, billed=None),
            )
            return True
        if isinstance(progress, Pending):
            return False
        await self.finish(
            generation_id, progress, request_id=request.request_id, traits=provider.traits
        )
        return True

    async def _give_up(
        self, generation_id: str, provider: Provider, request: ProviderRequest, detail: str
    ) -> None:
        command = _given_up(request.request_id, "timed_out", detail)
        decided = await self._fail(generation_id, command)
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

    async def _give_up_unheard(
        self, generation_id: str, state: Running, away: ProviderUnavailable
    ) -> None:
        """Let nobody wait any longer for a provider that took it and is not heard of any more."""
        detail = f"the provider took it and gives no answer, after {self.policy.max_run_s:g} s: "
        command = _given_up(state.submitted.request_id, UNREACHABLE, f"{detail}{away}")
        decided = await self._fail(generation_id, command)
        match decided.state:
            case Done(outcome=GenerationFailed()):
                raise ProviderStaysAway(f"{detail}{away}") from away
            case _:
                return  # its webhook came in just now

    async def _after_the_end(self, generation_id: str, state: Done) -> None:
        """What is left to do: stop work that nobody wants, and hear what only we gave up on."""
        if state.request is None or state.submitted is None:
            return
        provider = self._provider(state.request.provider)
        if is_unwanted(state.submitted.request_id, state):
            await provider.cancel(_named(state.submitted))
        match state.outcome:
            case GenerationFailed(given_up=True, code=code):
                ended = await self._poll(generation_id, provider, state.submitted)
                if not ended and code == UNREACHABLE:
                    raise StillAtWork("the provider answers again, and has no result yet")
            case _:
                pass

    async def _fail(self, generation_id: str, command: Fail) -> Decided:
        return await self.decider.handle(generation_id, command)

    def _is_late(self, state: Running) -> bool:
        given_up_at = state.submitted_at + timedelta(seconds=self.policy.max_run_s)
        return self.decider.clock() >= given_up_at

    def _provider(self, name: str) -> Provider:
        try:
            return self.providers[name]
        except KeyError:
            raise UnknownProvider(
                f"no provider {name!r} is set up here; there are: {', '.join(self.providers)}"
            ) from None


def _given_up(request_id: str, code: str, detail: str) -> Fail:
    return Fail(request_id, code, detail, retryable=True, billed=None, given_up=True)


def _named(submitted: GenerationSubmitted) -> ProviderRequest:
    return ProviderRequest(
        request_id=submitted.request_id,
        status_url=submitted.status_url,
        response_url=submitted.response_url,
        cancel_url=submitted.cancel_url,
    )
