"""What happened to a generation, and where its bytes are now."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path
from fastapi.responses import RedirectResponse

from generation_svc.adapters.http.models import EventAnswer, HistoryAnswer
from generation_svc.adapters.http.openapi import answers
from generation_svc.adapters.http.parameters import DEFAULT_WAIT_S, AtLeast, GenerationId, WaitS
from generation_svc.adapters.http.ports import ObjectUrls
from generation_svc.adapters.http.problems import (
    InvalidRequest,
    Later,
    LogAway,
    NotFound,
    OutputGone,
    OutputNotFound,
    ReadModelAway,
    ReadModelBehind,
    TooManyWait,
)
from generation_svc.adapters.http.reading import Reading
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.read_model.looking_back import folded
from generation_svc.read_model.looking_back import history as load_history
from generation_svc.read_model.rows import StorageState
from shared.contracts.envelope import Recorded, UnknownEvent
from shared.event_log.port import EventLog

_OutputIndex = Annotated[int, Path(ge=0, lt=1000, description="Which output, from 0.")]


def media_router(
    *, log: EventLog, reading: Reading, object_urls: ObjectUrls, clock: Callable[[], datetime]
) -> APIRouter:
    """The routes below one generation that read."""

    async def history(generation_id: GenerationId) -> HistoryAnswer:
        """Everything that happened to the generation, from the log itself: never behind."""
        events = await load_history(log, generation_id)
        if not events:
            raise UnknownGeneration("the log has no event of a generation with this id")
        now = folded(events)
        shown = [_event(event) for event in events]
        if now is not None and now.storage_state is StorageState.STORED:
            # The log keeps them; whoever reads answers has no use for them any more.
            for event in shown:
                event.data = without_links(event.data)
        return HistoryAnswer(id=generation_id, events=shown)

    async def output(
        generation_id: GenerationId,
        index: _OutputIndex,
        at_least: AtLeast = None,
        wait_s: WaitS = DEFAULT_WAIT_S,
    ) -> RedirectResponse:
        """Go to the bytes of one output, wherever they are now. This address does not die."""
        await reading.reached(at_least, timeout_s=wait_s)
        generation = await reading.find(generation_id)
        if index >= len(generation.outputs):
            raise OutputNotFound(
                f"it is {generation.status.value} and has {len(generation.outputs)} outputs"
            )
        found = generation.outputs[index]
        if found.stored is not None:
            return _to((await object_urls(found.stored)).url)
        if found.expires_at <= clock():
            why = f", and it was never stored: {found.lost_reason}" if found.lost_reason else ""
            raise OutputGone(f"the provider's link died at {found.expires_at.isoformat()}{why}")
        return _to(found.source_url)

    router = APIRouter(prefix="/v1/generations/{generation_id}", tags=["generations"])
    router.add_api_route(
        "/events",
        history,
        methods=["GET"],
        responses=answers(InvalidRequest, NotFound, LogAway, Later),
    )
    router.add_api_route(
        "/outputs/{index}",
        output,
        methods=["GET"],
        status_code=307,
        response_class=RedirectResponse,
        response_description="To the stored object, or to the provider while its link lives.",
        responses={
            307: {
                "headers": {
                    "Location": {"description": "Of the bytes.", "schema": {"type": "string"}}
                }
            },
            **answers(
                InvalidRequest,
                NotFound,
                OutputNotFound,
                OutputGone,
                ReadModelAway,
                ReadModelBehind,
                TooManyWait,
            ),
        },
    )
    return router


def without_links(data: Mapping[str, Any]) -> dict[str, Any]:
    """An event's content without the links to the provider's media, which are null instead."""
    shown = {**data, "link": None} if "link" in data else dict(data)
    for name in ("outputs", "links"):
        if isinstance(listed := data.get(name), list):
            shown[name] = [
                {**each, "source_url": None} if isinstance(each, dict) else each
                for each in cast("list[object]", listed)
            ]
    return shown


def _to(url: str) -> RedirectResponse:
    # Where the bytes are changes when they are stored, and a signed URL dies.
    return RedirectResponse(url, status_code=307, headers={"Cache-Control": "no-store"})


def _event(recorded: Recorded) -> EventAnswer:
    envelope = recorded.envelope
    data = envelope.data
    return EventAnswer(
        position=recorded.position,
        id=envelope.id,
        type=envelope.type,
        source=envelope.source,
        time=envelope.time,
        correlation_id=envelope.correlationid,
        causation_id=envelope.causationid,
        traceparent=envelope.traceparent,
        data=data.body if isinstance(data, UnknownEvent) else data.model_dump(mode="json"),
    )
