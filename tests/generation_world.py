"""A world for generation runs: one log, one scripted provider, and time that passes when told.

Time stands still while anybody works and jumps to the next wake-up when everybody waits, so that
ten minutes of waiting take none, and who is first is decided by the script alone.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from generation_svc.application.accept_webhook import AcceptWebhook, webhook_token
from generation_svc.application.cancel_generation import cancel_generation
from generation_svc.application.deciding import Decided, Decider
from generation_svc.application.finish_generation import FinishGeneration
from generation_svc.application.provider import (
    Pending,
    Progress,
    ProviderOutput,
    ProviderRequest,
    ProviderTraits,
    Result,
    Submission,
    SubmitOutcomeUnknown,
    Succeeded,
    WebhookCall,
    WebhookRejected,
    WebhookReport,
)
from generation_svc.application.request_generation import request_generation
from generation_svc.application.run_generation import RunGeneration
from generation_svc.application.run_policy import RunPolicy
from generation_svc.domain.commands import Request
from shared.contracts.facts import StoredObject
from shared.errors import Conflict, TryLater
from shared.event_log.memory import MemoryLog
from tests.generation_events import NOON

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Coroutine,
        Sequence,
    )

    from shared.contracts.envelope import Envelope
    from shared.contracts.events import AnyEvent
    from shared.contracts.facts import Family
    from shared.event_log.port import (
        Added,
        Addition,
        Appended,
        ExpectedVersion,
        History,
        RawRecord,
    )
    from shared.media.copying import CopyOrder

REQUEST = Request("ann", "scripted", "painter", {"prompt": "a lighthouse"})
MEDIA = Succeeded((ProviderOutput("https://media.example/0.png", media_type="image/png"),))
SECRET = b"secret"
TRAITS = ProviderTraits(
    name="scripted",
    link_lifetime_s=3600.0,
    refetch_window_s=360.0,
    download_needs_key=False,
    idempotent_submit=False,
    deletes_sources=True,
)

# More turns of the loop than any work here takes between two of its waits.
_TURNS = 40

Step = Literal["take", "lose_answer", "lose_request"]


async def give_way(_where: str) -> None:
    """The hook that does nothing but let others go first."""
    await asyncio.sleep(0)


class Time:
    """The clock, and the waits on it."""

    def __init__(self) -> None:
        self.now = NOON
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def passed_s(self) -> float:
        return (self.now - NOON).total_seconds()

    async def pause(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        at = self.now + timedelta(seconds=seconds)
        heapq.heappush(self._sleepers, (at, next(self._order), wake))
        await wake

    async def until_done(self, *tasks: asyncio.Task[None]) -> None:
        """Let time pass until all of these have ended, well or not."""
        while True:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                return
            assert self._sleepers, "somebody waits for what never comes"
            at, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                self.now = at
                wake.set_result(None)


@dataclass
class ScriptedProvider:
    """Takes work as the script says, and everything once the script is over.

    Attributes:
        submits: what becomes of each call, in order.
        polls: what each poll raises, in order; None: it answers.
        finished_after_s: how long after it was taken work has its result.
        taken: the requests that are paid for.
    """

    time: Time
    submits: list[Step | Exception] = field(default_factory=list["Step | Exception"])
    polls: list[Exception | None] = field(default_factory=list["Exception | None"])
    cancels: list[Exception | None] = field(default_factory=list["Exception | None"])
    result: Result = MEDIA
    finished_after_s: float = 10.0
    answers_after_s: float = 2.0
    submissions: list[Submission] = field(default_factory=list["Submission"])
    taken: dict[str, datetime] = field(default_factory=dict[str, "datetime"])
    cancelled: list[str] = field(default_factory=list[str])
    deleted: list[str] = field(default_factory=list[str])

    @property
    def traits(self) -> ProviderTraits:
        return TRAITS

    async def submit(self, submission: Submission) -> ProviderRequest:
        self.submissions.append(submission)
        step = self.submits.pop(0) if self.submits else "take"
        if isinstance(step, Exception):
            raise step
        if step == "lose_request":
            raise SubmitOutcomeUnknown("the connection broke")
        request_id = f"r{len(self.taken) + 1}"
        self.taken[request_id] = self.time.now
        await self.time.pause(self.answers_after_s)
        if step == "lose_answer":
            raise SubmitOutcomeUnknown("the answer was lost")
        return named(request_id)

    async def poll(self, request: ProviderRequest) -> Progress:
        error = self.polls.pop(0) if self.polls else None
        if error is not None:
            raise error
        taken_at = self.taken[request.request_id]
        ready = self.time.now >= taken_at + timedelta(seconds=self.finished_after_s)
        return self.result if ready else Pending()

    async def cancel(self, request: ProviderRequest) -> None:
        error = self.cancels.pop(0) if self.cancels else None
        if error is not None:
            raise error
        self.cancelled.append(request.request_id)

    async def delete_sources(self, request: ProviderRequest) -> None:
        self.deleted.append(request.request_id)

    async def read_webhook(self, call: WebhookCall, *, now: datetime) -> WebhookReport:
        del now
        if call.headers.get("signature") != "good":
            raise WebhookRejected("the signature is wrong")
        return WebhookReport(json.loads(call.body)["request_id"], self.result)


def named(request_id: str) -> ProviderRequest:
    url = f"https://queue.example/{request_id}"
    return ProviderRequest(request_id, f"{url}/status", url, f"{url}/cancel")


@dataclass
class ScriptedCopier:
    """Does what the script says by output index, and stores everything else."""

    script: dict[int, Exception | Callable[[], Awaitable[None]]] = field(
        default_factory=dict[int, "Exception | Callable[[], Awaitable[None]]"]
    )
    orders: list[CopyOrder] = field(default_factory=list["CopyOrder"])

    async def copy(self, order: CopyOrder) -> StoredObject:
        self.orders.append(order)
        match self.script.get(order.output_index):
            case None:
                pass
            case Exception() as error:
                raise error
            case step:
                await step()
        return stored_object(order.output_index)


def stored_object(index: int) -> StoredObject:
    return StoredObject(
        bucket="media",
        key=f"ann/g/{index}-abababababababab.png",
        size_bytes=5,
        sha256="ab" * 32,
        media_type="image/png",
    )


@dataclass
class HookedLog:
    """The log with a hook before and after every append and load."""

    inner: MemoryLog
    hook: Callable[[str], Awaitable[None]]

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        await self.hook("before append")
        appended = await self.inner.append(family, generation_id, events, expected=expected)
        await self.hook("after append")
        return appended

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        await self.hook("before load")
        history = await self.inner.load(family, generation_id, until=until)
        await self.hook("after load")
        return history

    def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        return self.inner.append_all(additions)

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        return self.inner.read(after=after, until=until)

    async def last_position(self) -> int:
        return await self.inner.last_position()


@dataclass
class HookedProvider:
    """The provider with a hook before and after every request."""

    inner: ScriptedProvider
    hook: Callable[[str], Awaitable[None]]

    @property
    def traits(self) -> ProviderTraits:
        return self.inner.traits

    async def submit(self, submission: Submission) -> ProviderRequest:
        await self.hook("before submit")
        taken = await self.inner.submit(submission)
        await self.hook("after submit")
        return taken

    async def poll(self, request: ProviderRequest) -> Progress:
        await self.hook("before poll")
        progress = await self.inner.poll(request)
        await self.hook("after poll")
        return progress

    async def cancel(self, request: ProviderRequest) -> None:
        await self.hook("before cancel")
        await self.inner.cancel(request)
        await self.hook("after cancel")

    async def delete_sources(self, request: ProviderRequest) -> None:
        await self.hook("before delete_sources")
        await self.inner.delete_sources(request)
        await self.hook("after delete_sources")

    async def read_webhook(self, call: WebhookCall, *, now: datetime) -> WebhookReport:
        return await self.inner.read_webhook(call, now=now)


@dataclass
class HookedCopier:
    """The copier with a hook before and after every copy."""

    inner: ScriptedCopier
    hook: Callable[[str], Awaitable[None]]

    async def copy(self, order: CopyOrder) -> StoredObject:
        await self.hook("before copy")
        stored = await self.inner.copy(order)
        await self.hook("after copy")
        return stored


class World:
    """One generation's surroundings, which outlive the processes that run it."""

    def __init__(self, *, policy: RunPolicy | None = None) -> None:
        self.time = Time()
        self.log = MemoryLog()
        self.provider = ScriptedProvider(self.time)
        self.copier = ScriptedCopier()
        self.policy = policy or RunPolicy()
        self.decider = Decider(self.log, clock=lambda: self.time.now, source="test")
        self.finish = FinishGeneration(self.decider, self.copier, budget_s=5.0)
        self.generation_id = ""

    async def requested(self) -> World:
        accepted = await request_generation(REQUEST, decider=self.decider)
        self.generation_id = accepted.generation_id
        return self

    def runner(
        self,
        hook: Callable[[str], Awaitable[None]] = give_way,
        *,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> RunGeneration:
        """A process of its own, with a hook into everything that it awaits."""

        async def hooked_pause(seconds: float) -> None:
            await hook("before pause")
            await (pause or self.time.pause)(seconds)

        log = HookedLog(self.log, hook)
        decider = Decider(log, clock=lambda: self.time.now, source="test")
        return RunGeneration(
            decider=decider,
            finish=FinishGeneration(decider, HookedCopier(self.copier, hook), budget_s=5.0),
            providers={"scripted": HookedProvider(self.provider, hook)},
            webhook_url=lambda provider, generation_id: f"https://us/{provider}/{generation_id}",
            policy=self.policy,
            pause=hooked_pause,
        )

    async def play(self, *parts: Coroutine[object, object, None]) -> None:
        """Let these happen side by side; raises what the first of them that failed raised."""
        tasks = [asyncio.create_task(part) for part in parts]
        await self.time.until_done(*tasks)
        for task in tasks:
            task.result()

    async def run(self, hook: Callable[[str], Awaitable[None]] = give_way) -> None:
        """One run to its end."""
        await self.play(self.runner(hook)(self.generation_id))

    async def run_redelivered(self, hook: Callable[[str], Awaitable[None]] = give_way) -> None:
        """Runs as the consumer would start them: again, a little later, after an interruption."""

        async def deliveries() -> None:
            for _ in range(10):
                with suppress(TryLater, Conflict):
                    await self.runner(hook)(self.generation_id)
                    return
                await self.time.pause(2.0)
            raise AssertionError("ten deliveries were not enough")

        await self.play(deliveries())

    async def run_until(self, dies_at: int) -> bool:
        """One run that is killed at its await number `dies_at`; whether it lived that long."""
        seen = 0

        async def die(_where: str) -> None:
            nonlocal seen
            seen += 1
            if seen == dies_at:
                run.cancel()
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)

        run = asyncio.create_task(self.runner(die)(self.generation_id))
        await self.time.until_done(run)
        if run.cancelled():
            return True
        run.result()
        return False

    async def webhook(self, request_id: str, *, after_s: float = 0.0) -> None:
        """The provider's callback, after a while."""
        await self.time.pause(after_s)
        await self.call_back(request_id)

    async def call_back(self, request_id: str) -> Decided:
        accept = AcceptWebhook(
            self.finish, {"scripted": self.provider}, SECRET, clock=lambda: self.time.now
        )
        token = webhook_token(SECRET, "scripted", self.generation_id)
        call = WebhookCall({"signature": "good"}, json.dumps({"request_id": request_id}).encode())
        return await accept("scripted", self.generation_id, token, call)

    async def cancel(self, *, after_s: float = 0.0) -> None:
        """Somebody's wish, after a while."""
        await self.time.pause(after_s)
        await cancel_generation(self.generation_id, reason="", decider=self.decider)

    async def events(self) -> list[AnyEvent]:
        history = await self.log.load("generation", self.generation_id)
        return [recorded.envelope.data for recorded in history.events]  # pyright: ignore[reportReturnType] - no event here is unknown

    async def told(self) -> list[str]:
        """The names of what happened."""
        return [type(event).__name__ for event in await self.events()]
