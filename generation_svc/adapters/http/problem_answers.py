"""Every error as a problem: those of the layers below, the framework's, and defects.

`fastapi-problem` writes the answers. Left out of it: its description of validation errors and
its changes to the OpenAPI document, because they repeat the caller's input, which need not be
something that can be written as JSON (NaN, half a surrogate pair), and because they promise
answers that no route gives.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import fastapi_problem.handler
import structlog
from fastapi.exceptions import RequestValidationError
from rfc9457 import Problem
from starlette.exceptions import HTTPException
from starlette.routing import Match

from generation_svc.adapters.http import problems
from generation_svc.adapters.http.middleware import CORRELATION_HEADER, correlation_id_of
from generation_svc.adapters.http.ports import ReadModelUnavailable, TooManyWatchers
from generation_svc.application.provider import WebhookRejected
from generation_svc.domain.decide import AlreadyFinished, IdempotencyKeyReused, UnknownGeneration
from shared.errors import Conflict, Refused, TryLater, VelroError, in_words
from shared.event_log.port import AppendOutcomeUnknown, EventTooLarge, LogFull, LogUnavailable
from shared.projection.errors import NotReached, TooManyWaiters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request, Response
    from starlette.routing import BaseRoute

log = structlog.get_logger()

# The first that fits counts, so that what is said of a whole branch of errors stands below.
_TOLD_AS: Final[tuple[tuple[type[VelroError], type[problems.VelroProblem]], ...]] = (
    (IdempotencyKeyReused, problems.KeyReused),
    (AlreadyFinished, problems.Finished),
    (UnknownGeneration, problems.NotFound),
    (WebhookRejected, problems.NotACallback),
    (EventTooLarge, problems.TooLarge),
    (LogUnavailable, problems.LogAway),
    (LogFull, problems.LogAway),
    (AppendOutcomeUnknown, problems.OutcomeUnknown),
    (ReadModelUnavailable, problems.ReadModelAway),
    (NotReached, problems.ReadModelBehind),
    (TooManyWaiters, problems.TooManyWait),
    (TooManyWatchers, problems.TooManyWait),
    (TryLater, problems.Later),
    (Conflict, problems.Later),
    (Refused, problems.WillNotDo),
)


# What is raised while a body is read. The framework has one 400, for a body it cannot parse.
_REFUSED_BODIES: Final[dict[int, type[problems.VelroProblem]]] = {
    HTTPStatus.BAD_REQUEST: problems.Unreadable,
    HTTPStatus.REQUEST_TIMEOUT: problems.TooSlow,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problems.TooLarge,
}


def problem_of(error: VelroError) -> problems.VelroProblem:
    """How an error of the layers below is told to a caller."""
    kinds = (kind for told, kind in _TOLD_AS if isinstance(error, told))
    kind = next(kinds, problems.Defect)
    return kind(str(error))


def add_problems(app: FastAPI) -> None:
    """Answer every error with a problem: ours, the framework's, and defects."""
    # Half of the library's annotations are missing: what it makes is typed by `answer` below.
    make: Any = cast("Any", fastapi_problem.handler).new_exception_handler
    handler: Any = make(
        handlers={VelroError: _of_velro_error},
        http_exception_handler=_of_http_error,
        request_validation_handler=_of_invalid_request,
        unhandled_wrappers={"default": problems.Defect},
        documentation_uri_template=problems.TYPE_TEMPLATE,
        strict_rfc9457=True,
    )

    async def answer(request: Request, error: Exception) -> Response:
        # The library's handler is a plain function, which Starlette would run in a thread.
        response = cast("Response", handler(request, error))
        if (correlation_id := correlation_id_of(request)) is not None:
            # Defects are answered outside of the middleware that names all other answers.
            response.headers.setdefault(CORRELATION_HEADER, correlation_id)
        return response

    for error_type in (Exception, VelroError, Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(error_type, answer)


def _of_velro_error(_handler: object, request: Request, error: VelroError) -> Problem:
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request_not_served", path=request.url.path, why=in_words(error))
    return problem


def _of_http_error(_handler: object, request: Request, error: HTTPException) -> Problem:
    """What the framework refuses: problems that mean no more than their status."""
    if (kind := _REFUSED_BODIES.get(error.status_code)) is not None:
        return kind(error.detail)
    title = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != title else None
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request))
    return Problem(title, detail=detail, status=error.status_code, headers=headers)


def _of_invalid_request(
    _handler: object, request: Request, error: RequestValidationError
) -> Problem:
    errors: Sequence[dict[str, Any]] = error.errors()
    sent_as = request.headers.get("content-type")
    if any(each["loc"] == ("body",) for each in errors) and not _is_json(sent_as):
        # The framework has not even tried to read it.
        return problems.NotSentAsJson(
            f"it was sent as {sent_as or 'nothing'}: say Content-Type: application/json"
        )
    return problems.InvalidRequest(errors=[_named(each) for each in errors[:20]])


def _is_json(content_type: str | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _named(error: Mapping[str, Any]) -> dict[str, str]:
    where, *path = error["loc"]
    if error["type"] == "json_invalid":
        # Its place is a number of characters, and no path into what could not be read.
        detail = f"{error['msg']}: {error['ctx']['error']}, at character {path[0]}"
        return problems.named(str(where), (), detail)
    return problems.named(str(where), path, str(error["msg"]))


def _methods_of(request: Request) -> list[str]:
    """What a path can be asked with. The framework names the first route's methods only."""
    routes: Sequence[BaseRoute] = request.app.routes
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]
