"""Watch one generation: server-sent events, each the whole generation as it is by then."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from generation_svc.adapters.http import limits
from generation_svc.adapters.http.changes import Changes, Watching
from generation_svc.adapters.http.models import EndOfWatch, GenerationAnswer, Reason
from generation_svc.adapters.http.openapi import answers
from generation_svc.adapters.http.parameters import DEFAULT_WAIT_S, AtLeast, GenerationId, WaitS
from generation_svc.adapters.http.ports import ObjectUrls, ReadModelUnavailable
from generation_svc.adapters.http.presenting import present
from generation_svc.adapters.http.problems import (
    InvalidRequest,
    NotFound,
    ReadModelAway,
    ReadModelBehind,
    TooManyWait,
)
from generation_svc.adapters.http.reading import Reading
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.read_model.rows import Status
from generation_svc.read_model.views import GenerationView

_RECONNECT_AFTER_MS: Final = 1000


Until = Literal["finished", "stored"]


class NothingLeft(Exception):
    """The watcher has seen the last of it. A 204 tells an EventSource not to connect again."""


@dataclass(frozen=True, slots=True)
class _Watch:
    found: GenerationView
    watching: Watching
    over: Callable[[GenerationView], bool]
    until: Until
    seen: int
    ends_at: float


def watch_router(*, reading: Reading, changes: Changes, object_urls: ObjectUrls) -> APIRouter:
    """The one route of watchers. The app answers `NothingLeft` with `nothing_left`."""

    async def begun(
        *,
        generation_id: GenerationId,
        until: Annotated[
            Until,
            Query(description="`stored`: go on until every output is stored or lost."),
        ] = "finished",
        timeout_s: Annotated[
            float,
            Query(gt=0, le=limits.MAX_WATCH_S, description="For how long to watch."),
        ] = limits.DEFAULT_WATCH_S,
        at_least: AtLeast = None,
        wait_s: WaitS = DEFAULT_WAIT_S,
        last_event_id: Annotated[
            int | None,
            Header(ge=0, le=limits.MAX_POSITION, description="The position seen last."),
        ] = None,
    ) -> AsyncGenerator[_Watch]:
        """Everything that can be refused is refused here, before the stream has begun."""
        over = _OVER[until]
        await reading.reached(at_least, timeout_s=wait_s)
        async with changes.watching(generation_id) as watching:
            found = await reading.find(generation_id)
            seen = -1 if last_event_id is None else last_event_id
            if over(found) and found.position <= seen:
                raise NothingLeft
            ends_at = asyncio.get_running_loop().time() + timeout_s
            yield _Watch(found, watching, over, until, seen, ends_at)

    async def watch(
        watch: Annotated[_Watch, Depends(begun)],
    ) -> AsyncIterator[ServerSentEvent]:
        """Watch a generation until it is finished, or until its outputs are stored.

        An event `generation` has the whole generation and its position as id; states that follow
        closely on each other may come as one. The last event is `end` and says why it is the
        last. To go on after a lost connection, send `Last-Event-ID`.
        """
        clock = asyncio.get_running_loop().time
        found, seen = watch.found, watch.seen
        while True:
            if found.position > seen:
                seen = found.position
                yield ServerSentEvent(
                    event="generation",
                    id=str(seen),
                    data=await present(found, object_urls),
                    retry=_RECONNECT_AFTER_MS,
                )
            if watch.over(found):
                yield _end(watch.until)
                return
            left_s = watch.ends_at - clock()
            if left_s <= 0:
                yield _end("deadline")
                return
            if watch.watching.closing:
                yield _end("shutting_down")
                return
            await watch.watching.changed(timeout_s=left_s)
            try:
                found = await reading.find(found.id)
            except (ReadModelUnavailable, UnknownGeneration):
                # Away, or being rebuilt: whoever connects again is told which.
                yield _end("interrupted")
                return

    router = APIRouter(prefix="/v1/generations/{generation_id}", tags=["generations"])
    router.add_api_route(
        "/watch",
        watch,
        methods=["GET"],
        response_class=EventSourceResponse,
        responses={
            200: {"description": "A stream of events.", "content": _STREAM},
            204: {"description": "`Last-Event-ID` is the last there will be."},
            **answers(InvalidRequest, NotFound, ReadModelAway, ReadModelBehind, TooManyWait),
        },
    )
    return router


async def nothing_left(_request: Request, _error: Exception) -> Response:
    """Answer `NothingLeft`."""
    return Response(status_code=204)


def _finished(found: GenerationView) -> bool:
    return found.status.finished


def _settled(found: GenerationView) -> bool:
    if found.status is not Status.COMPLETED:
        return found.status.finished
    return all(
        output.stored is not None or output.lost_reason is not None for output in found.outputs
    )


_OVER: Final = {"finished": _finished, "stored": _settled}


def _end(reason: Reason) -> ServerSentEvent:
    return ServerSentEvent(event="end", data=EndOfWatch(reason=reason))


def _event_schema(name: str, model: str) -> dict[str, Any]:
    return {
        "properties": {
            "event": {"const": name},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"#/components/schemas/{model}"},
            },
        }
    }


_STREAM: Final = {
    "text/event-stream": {
        "itemSchema": {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"type": "string"},
                "id": {"type": "string"},
                "retry": {"type": "integer"},
            },
            "oneOf": [
                _event_schema("generation", GenerationAnswer.__name__),
                _event_schema("end", EndOfWatch.__name__),
            ],
        }
    }
}
