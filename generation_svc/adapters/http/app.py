"""The application, from the parts that it is given. Nothing here is global."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from generation_svc.adapters.http.generation_routes import generation_router
from generation_svc.adapters.http.health_routes import health_router
from generation_svc.adapters.http.limits import BODY_S, MAX_BODY_BYTES, PIECE_S
from generation_svc.adapters.http.media_routes import media_router
from generation_svc.adapters.http.middleware import BoundedBodies, Correlation
from generation_svc.adapters.http.openapi import DocumentedApp
from generation_svc.adapters.http.problem_answers import add_problems
from generation_svc.adapters.http.slow_clients import SlowClients
from generation_svc.adapters.http.watch_routes import NothingLeft, nothing_left, watch_router
from generation_svc.adapters.http.webhook_routes import webhook_router

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastapi import FastAPI

    from generation_svc.adapters.http.changes import Changes
    from generation_svc.adapters.http.ports import ObjectUrls, Readiness
    from generation_svc.adapters.http.reading import Reading
    from generation_svc.adapters.http.webhook_routes import AcceptsWebhooks
    from generation_svc.application.deciding import Decider
    from shared.event_log.port import EventLog

_DESCRIPTION = """
Runs AI media generations and keeps what they make.

Every write answers with its `position` in the log. Reads are a moment behind; `at_least` makes one
wait for a position. A completed generation has URLs in any case: of the provider while the media
is not stored yet, of the bucket afterwards. Errors are problem details (RFC 9457); `type` says
which, and is the path of its explanation.

Callers are not authenticated: keep the service on a private address.
"""


def _now() -> datetime:
    return datetime.now(UTC)


def build_app(
    *,
    decider: Decider,
    log: EventLog,
    reading: Reading,
    changes: Changes,
    object_urls: ObjectUrls,
    accept_webhook: AcceptsWebhooks,
    providers: Collection[str],
    readiness: Readiness,
    version: str = "1",
    clock: Callable[[], datetime] = _now,
    max_body_bytes: int = MAX_BODY_BYTES,
    body_s: float = BODY_S,
    piece_s: float = PIECE_S,
) -> FastAPI:
    """Put the API together. It owns no connection and no task: those are the caller's.

    Args:
        decider: decides and appends.
        log: where histories are read.
        reading: the read model.
        changes: tells watchers; the caller closes it when the service shuts down, or watchers
            keep the server waiting.
        object_urls: makes URLs of stored objects.
        accept_webhook: verifies and records callbacks.
        providers: the names that requests may use.
        readiness: asks every part how it is.
        version: shown in the OpenAPI document.
        clock: tells whether a provider's link still lives.
        max_body_bytes: of any request.
        body_s: how long a request's body may take to arrive.
        piece_s: how long a client may take no piece of its answer.
    """
    app = DocumentedApp(
        title="Velro generation service",
        version=version,
        description=_DESCRIPTION,
        # The pages would fetch their scripts from somewhere else.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(
        generation_router(
            decider=decider, reading=reading, object_urls=object_urls, providers=providers
        )
    )
    app.include_router(media_router(log=log, reading=reading, object_urls=object_urls, clock=clock))
    app.include_router(watch_router(reading=reading, changes=changes, object_urls=object_urls))
    app.include_router(webhook_router(accept_webhook))
    app.include_router(health_router(readiness))
    add_problems(app)
    app.add_exception_handler(NothingLeft, nothing_left)
    app.add_middleware(BoundedBodies, max_bytes=max_body_bytes)
    app.add_middleware(SlowClients, body_s=body_s, piece_s=piece_s)
    app.add_middleware(Correlation)
    return app
