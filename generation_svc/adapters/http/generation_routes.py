"""Request, look up, list and cancel generations."""

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json

from generation_svc.adapters.http import limits
from generation_svc.adapters.http.middleware import (
    CORRELATION_HEADER,
    TRACE_HEADER,
    usable_correlation_id,
    usable_traceparent,
)
from generation_svc.adapters.http.models import (
    AcceptedAnswer,
    CancelRequest,
    GenerationAnswer,
    GenerationPage,
    GenerationRequest,
    Links,
    UserId,
)
from generation_svc.adapters.http.openapi import answers
from generation_svc.adapters.http.parameters import DEFAULT_WAIT_S, AtLeast, GenerationId, WaitS
from generation_svc.adapters.http.ports import ObjectUrls
from generation_svc.adapters.http.presenting import present
from generation_svc.adapters.http.problems import (
    Finished,
    InvalidRequest,
    KeyReused,
    Later,
    LogAway,
    NotFound,
    NotSentAsJson,
    OutcomeUnknown,
    ReadModelAway,
    ReadModelBehind,
    TooLarge,
    TooManyWait,
    TooSlow,
    UnknownProvider,
    Unreadable,
    invalid,
)
from generation_svc.adapters.http.reading import Reading
from generation_svc.application.cancel_generation import cancel_generation
from generation_svc.application.deciding import Decider
from generation_svc.application.request_generation import request_generation
from generation_svc.domain.commands import Request as Requested
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.read_model import looking_back
from generation_svc.read_model.queries import BadCursor
from generation_svc.read_model.rows import Status, StorageState
from generation_svc.read_model.views import GenerationView

_IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,255}$",
        description=(
            "Names the request for good, among its user's: the same key with the same body is "
            "the same generation, with another body a 422."
        ),
    ),
]

_POSITION_HEADERS = {
    "Location": {"description": "Of the generation.", "schema": {"type": "string"}},
    CORRELATION_HEADER: {
        "description": "What its events are correlated by.",
        "schema": {"type": "string"},
    },
}


def generation_router(
    *, decider: Decider, reading: Reading, object_urls: ObjectUrls, providers: Collection[str]
) -> APIRouter:
    """The routes of generations as a whole."""

    async def request(
        wanted: GenerationRequest,
        http: Request,
        response: Response,
        idempotency_key: _IdempotencyKey = None,
    ) -> AcceptedAnswer:
        """Request a generation. Once this answers, it is in the log and will be run."""
        if wanted.provider not in providers:
            raise UnknownProvider(
                f"there is no provider {wanted.provider!r}", providers=sorted(providers)
            )
        _refuse_oversized("input", wanted.input, limits.MAX_INPUT_BYTES)
        _refuse_oversized("metadata", wanted.metadata, limits.MAX_METADATA_BYTES)
        correlation_id = usable_correlation_id(http.headers.get(CORRELATION_HEADER))
        accepted = await request_generation(
            Requested(
                user_id=wanted.user_id,
                provider=wanted.provider,
                model=wanted.model,
                input=wanted.input,
                idempotency_key=idempotency_key,
                metadata=wanted.metadata,
            ),
            decider=decider,
            correlation_id=correlation_id,
            traceparent=usable_traceparent(http.headers.get(TRACE_HEADER)),
        )
        response.status_code = 200 if accepted.repeated else 202
        response.headers["Location"] = _path(accepted.generation_id)
        response.headers[CORRELATION_HEADER] = correlation_id or accepted.generation_id
        return _accepted(accepted.generation_id, accepted.position)

    async def look_up(
        generation_id: GenerationId,
        response: Response,
        at_least: AtLeast = None,
        wait_s: WaitS = DEFAULT_WAIT_S,
        as_of: Annotated[
            str | None,
            Query(
                max_length=64,
                description="As it was at this position of the log, or at this time (ISO 8601).",
            ),
        ] = None,
    ) -> GenerationAnswer:
        """One generation as the read model has it, which is a moment behind the log.

        With `as_of` it is read from the log itself. Links that the provider gave are left out of
        what was, too, once everything is stored: those outputs show where their bytes are now.
        """
        if as_of is not None:
            response.headers["Cache-Control"] = "no-store"  # signed URLs in it die
            return await present(await _as_it_was(decider, generation_id, as_of), object_urls)
        await reading.reached(at_least, timeout_s=wait_s)
        found = await reading.find(generation_id)
        response.headers["Cache-Control"] = "no-store"  # signed URLs in it die
        return await present(found, object_urls)

    async def list_newest(
        *,
        response: Response,
        user_id: Annotated[UserId | None, Query(description="Of this user.")] = None,
        status: Annotated[Status | None, Query(description="In this status.")] = None,
        storage_state: Annotated[
            StorageState | None, Query(description="With outputs that are there.")
        ] = None,
        cursor: Annotated[
            str | None, Query(max_length=200, description="`next_cursor` of the page before.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=limits.MAX_PAGE)] = limits.DEFAULT_PAGE,
        at_least: AtLeast = None,
        wait_s: WaitS = DEFAULT_WAIT_S,
    ) -> GenerationPage:
        """Generations, the newest first."""
        await reading.reached(at_least, timeout_s=wait_s)
        try:
            page = await reading.page(
                user_id=user_id,
                status=status,
                storage_state=storage_state,
                cursor=cursor,
                limit=limit,
            )
        except BadCursor as error:
            raise invalid(str(error), where="query", name="cursor") from error
        response.headers["Cache-Control"] = "no-store"  # signed URLs in it die
        return GenerationPage(
            generations=[await present(found, object_urls) for found in page.generations],
            next_cursor=page.next_cursor,
        )

    async def cancel(
        generation_id: GenerationId, http: Request, wanted: CancelRequest | None = None
    ) -> AcceptedAnswer:
        """Cancel a generation. Cancelling again changes nothing and answers the same."""
        reason = wanted.reason if wanted else ""
        decided = await cancel_generation(
            generation_id,
            reason=reason,
            decider=decider,
            correlation_id=usable_correlation_id(http.headers.get(CORRELATION_HEADER)),
        )
        return _accepted(generation_id, decided.position)

    router = APIRouter(prefix="/v1/generations", tags=["generations"])
    router.add_api_route(
        "",
        request,
        methods=["POST"],
        status_code=202,
        response_description="It is in the log.",
        responses={
            200: {
                "model": AcceptedAnswer,
                "description": "The same request was there before; nothing was added.",
                "headers": _POSITION_HEADERS,
            },
            202: {"headers": _POSITION_HEADERS},
            **answers(
                InvalidRequest,
                Unreadable,
                NotSentAsJson,
                TooSlow,
                UnknownProvider,
                KeyReused,
                TooLarge,
                LogAway,
                OutcomeUnknown,
                Later,
            ),
        },
    )
    router.add_api_route(
        "",
        list_newest,
        methods=["GET"],
        responses=answers(InvalidRequest, ReadModelAway, ReadModelBehind, TooManyWait),
    )
    router.add_api_route(
        "/{generation_id}",
        look_up,
        methods=["GET"],
        responses=answers(
            InvalidRequest, NotFound, LogAway, ReadModelAway, ReadModelBehind, TooManyWait, Later
        ),
    )
    router.add_api_route(
        "/{generation_id}/cancel",
        cancel,
        methods=["POST"],
        responses=answers(
            InvalidRequest,
            Unreadable,
            NotSentAsJson,
            TooSlow,
            NotFound,
            Finished,
            TooLarge,
            LogAway,
            OutcomeUnknown,
            Later,
        ),
    )
    return router


async def _as_it_was(decider: Decider, generation_id: str, as_of: str) -> GenerationView:
    try:
        moment = looking_back.moment(as_of)
        await looking_back.see_that_it_was(moment, decider.log, now=decider.clock())
    except looking_back.NoMoment as error:
        raise invalid(str(error), where="query", name="as_of") from error
    events = await looking_back.history(decider.log, generation_id)
    row = looking_back.folded(looking_back.until(events, moment))
    if row is None:
        raise UnknownGeneration("there was no generation with this id then")
    view = looking_back.view_of(generation_id, row)
    now = looking_back.folded(events)
    if now is not None and now.storage_state is StorageState.STORED:
        return replace(view, outputs=now.outputs[: len(row.outputs)])
    return view


def _refuse_oversized(name: str, value: object, max_bytes: int) -> None:
    size = len(to_json(value))
    if size > max_bytes:
        raise TooLarge(f"{name} is {size} bytes as JSON, and may have {max_bytes}")


def _path(generation_id: str) -> str:
    return f"/v1/generations/{generation_id}"


def _accepted(generation_id: str, position: int) -> AcceptedAnswer:
    path = _path(generation_id)
    return AcceptedAnswer(
        id=generation_id,
        position=position,
        links=Links(
            self=f"{path}?at_least={position}",
            watch=f"{path}/watch?at_least={position}",
            events=f"{path}/events",
            cancel=f"{path}/cancel",
        ),
    )
