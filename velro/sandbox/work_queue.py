"""Takes requests, works on a few at once, remembers what they came to."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog

from velro.sandbox import work as outcomes
from velro.sandbox.pictures import MEDIA_TYPES, Motif, draw
from velro.sandbox.webhooks import Callback

if TYPE_CHECKING:
    from velro.sandbox.media import MediaShelf, Medium
    from velro.sandbox.settings import SandboxSettings
    from velro.sandbox.webhooks import WebhookSender
    from velro.sandbox.work import Answer, Work

log = structlog.get_logger()

# Drawing holds the interpreter most of the time: more threads would only fight over it.
_PAINTERS = 2


class QueueFull(Exception):
    """More requests are open than the settings allow."""


class WorkQueue:
    """Owns every request and the task that works on it."""

    def __init__(self, settings: SandboxSettings, shelf: MediaShelf, sender: WebhookSender) -> None:
        self._settings = settings
        self._shelf = shelf
        self._sender = sender
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._painters = ThreadPoolExecutor(_PAINTERS, thread_name_prefix="painter")
        self._waiting: dict[str, Work] = {}
        self._working: dict[str, asyncio.Task[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self.works: dict[str, Work] = {}

    def accept(self, work: Work) -> None:
        """Queue it.

        Raises:
            QueueFull: too many are open.
        """
        if self._open >= self._settings.max_open_requests:
            raise QueueFull
        self._open += 1
        self.works[work.request_id] = work
        self._waiting[work.request_id] = work
        self._own(self._see_through(work))

    def position(self, work: Work) -> int:
        """How many wait before it."""
        for ahead, request_id in enumerate(self._waiting):
            if request_id == work.request_id:
                return ahead
        return 0

    def links_are_dead(self, work: Work) -> bool:
        """Whether it made media, and none of its links lives any more."""
        return bool(work.media) and not any(self._shelf.find(each.token) for each in work.media)

    async def renew_links(self, work: Work, *, lifetime_s: float) -> None:
        """Draw its pictures again, the same ones, behind new links."""
        work.lifetime_s = lifetime_s
        loop = asyncio.get_running_loop()
        media = await loop.run_in_executor(self._painters, self._make, work)
        for medium in media:
            self._shelf.hold(medium)
        work.media = media
        work.answer = outcomes.success(work)

    def forget(self, work: Work) -> list[str]:
        """Delete a finished request with its files; the last parts of their links."""
        tokens = [medium.token for medium in work.media]
        for token in tokens:
            self._shelf.delete(token)
        self._forget(work)
        return tokens

    def cancel(self, work: Work) -> bool:
        """Stop it; False where it had finished."""
        if work.state == "COMPLETED":
            return False
        work.cancelled = True
        task = self._working.get(work.request_id)
        # What is being drawn is drawn to the end: a thread cannot be stopped, and its files
        # would belong to nobody.
        if task is not None and not work.drawing:
            task.cancel()
        return True

    async def drain(self) -> None:
        """End all work, wait a little for callbacks, then end those too."""
        for request_id in list(self._working):
            self.cancel(self.works[request_id])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._painters.shutdown)

    def _own(self, errand: Any) -> None:  # noqa: ANN401 - a coroutine, whose type parameters say nothing here
        task: asyncio.Task[None] = asyncio.ensure_future(errand)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox_errand_failed", exc_info=error)

    async def _see_through(self, work: Work) -> None:
        task = asyncio.ensure_future(self._work_on(work))
        self._working[work.request_id] = task
        try:
            await asyncio.wait({task})
            work.answer = outcomes.cancelled() if task.cancelled() else task.result()
        finally:
            self._finish(work)
        await self._call_back(work)

    def _finish(self, work: Work) -> None:
        work.state = "COMPLETED"
        work.finished.set()
        self._open -= 1
        self._waiting.pop(work.request_id, None)
        self._working.pop(work.request_id, None)
        excess = len(self.works) - self._open - self._settings.max_finished_requests
        if excess > 0:
            finished = (each for each in self.works.values() if each.state == "COMPLETED")
            for forgotten in [old for old, _ in zip(finished, range(excess), strict=False)]:
                self._forget(forgotten)

    def _forget(self, work: Work) -> None:
        del self.works[work.request_id]
        for medium in work.media:
            self._shelf.forget_downloads(medium.token)

    async def _work_on(self, work: Work) -> Answer:
        faults = work.faults
        if work.cancelled:
            return outcomes.cancelled()
        await asyncio.sleep(faults.queue_s or 0.0)
        async with self._slots:
            self._waiting.pop(work.request_id, None)
            work.state = "IN_PROGRESS"
            started = time.monotonic()
            await asyncio.sleep(faults.render_s or 0.0)
            if faults.fail == "infrastructure":
                return outcomes.infrastructure_failure(faults)
            if faults.fail == "model":
                return outcomes.model_failure(work)
            work.drawing = True
            loop = asyncio.get_running_loop()
            media = await loop.run_in_executor(self._painters, self._make, work)
            for medium in media:
                self._shelf.hold(medium)
            work.media = media
            work.worked_s = time.monotonic() - started
            return outcomes.success(work)

    def _make(self, work: Work) -> tuple[Medium, ...]:
        width, height = work.input.pixels()
        count = 1 if work.moving else work.input.num_images
        made: list[Medium] = []
        for index in range(count):
            motif = Motif(
                prompt=work.input.prompt,
                seed=work.input.chosen_seed(),
                index=index,
                width=width,
                height=height,
                format=work.picture_format,
            )
            made.append(
                self._shelf.store(
                    draw(motif),
                    motif.format,
                    MEDIA_TYPES[motif.format],
                    work.request_id,
                    work.lifetime_s,
                    work.faults,
                )
            )
        return tuple(made)

    async def _call_back(self, work: Work) -> None:
        how = work.faults.webhook
        if work.webhook_url is not None and work.answer is not None and how != "withheld":
            await asyncio.sleep(work.faults.webhook_delay_s or 0.0)
            callback = Callback(
                url=work.webhook_url,
                request_id=work.request_id,
                body=callback_body(work.request_id, work.answer),
                forged=how == "bad_signature",
                stale=how == "stale",
            )
            work.webhook_tries = await self._sender.deliver(callback)
            if how == "duplicated":
                await self._sender.deliver(callback)
        work.called_back.set()


def callback_body(request_id: str, answer: Answer) -> dict[str, Any]:
    """What a callback says (https://docs.fal.ai/model-endpoints/webhooks)."""
    body: dict[str, Any] = {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK" if answer.error is None else "ERROR",
        "payload": answer.body,
    }
    if answer.error is not None:
        body["error"] = answer.error
    return body
