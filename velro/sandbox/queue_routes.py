"""fal's queue API: submit, status, result, cancel (https://docs.fal.ai/model-endpoints/queue)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from velro.sandbox.connections import Cut, Silence, raw_answer
from velro.sandbox.work import Work, WorkInput
from velro.sandbox.work_queue import QueueFull

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velro.sandbox.faults import Faults
    from velro.sandbox.ledger import Ledger
    from velro.sandbox.settings import SandboxSettings
    from velro.sandbox.work_queue import WorkQueue

_EARLY_WEBHOOK_DEADLINE_S = 60.0
_PAGE = "<!doctype html><title>Sorry</title><h1>Something is not as it should be</h1>"


class _Lifecycle(BaseModel):
    model_config = ConfigDict(extra="ignore")

    expiration_duration_seconds: float | None = Field(default=None, gt=0)


class QueueRoutes:
    """The queue's endpoints. `default_faults` may be exchanged while it runs."""

    def __init__(
        self,
        settings: SandboxSettings,
        queue: WorkQueue,
        ledger: Ledger,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._ledger = ledger
        self._stopping = stopping
        self.default_faults = settings.faults

    def router(self) -> APIRouter:
        """The routes, for an app to include last: submitting takes any path."""
        router = APIRouter()
        request_path = "/{app:path}/requests/{request_id}"
        router.add_api_route(f"{request_path}/status", self.status, methods=["GET"])
        router.add_api_route(f"{request_path}/cancel", self.cancel, methods=["PUT"])
        router.add_api_route(request_path, self.result, methods=["GET"])
        router.add_api_route(
            "/models/requests/{request_id}/payloads", self.delete_payloads, methods=["DELETE"]
        )
        router.add_api_route("/{model:path}", self.submit, methods=["POST"])
        return router

    async def submit(
        self, request: Request, model: str, fal_webhook: Annotated[str | None, Query()] = None
    ) -> Response:
        """Take work, or do to the submission what its faults say."""
        if refusal := self._unauthorized(request):
            return refusal
        body = await _body(request, self._settings.max_input_bytes)
        if body is None:
            return _flat_error(413, "The request is too large", "bad_request")
        origin = _origin(request, fal_webhook, body)
        self._ledger.note_posted(origin)
        try:
            work_input = WorkInput.model_validate(json.loads(body))
        except (ValidationError, ValueError) as error:
            return _input_error(error)
        faults = work_input.sandbox.over(self.default_faults)
        told = faults.submit is not None or faults.submit_status is not None
        struck = told and self._ledger.strikes("submit", origin, faults.submit_times)
        if struck and (refusal := _untaken(faults)):
            return refusal
        work = Work(
            request_id=str(uuid.uuid4()),
            app=_app_of(model),
            model=model,
            input=work_input,
            faults=faults,
            origin=origin,
            base_url=str(request.base_url).rstrip("/"),
            webhook_url=fal_webhook,
            lifetime_s=self._lifetime_s(request, faults),
        )
        return await self._take(work, struck=struck)

    async def status(
        self, request: Request, request_id: str, logs: Annotated[str | None, Query()] = None
    ) -> Response:
        """How far a request is: 202 until it is COMPLETED, then 200."""
        if refusal := self._unauthorized(request):
            return refusal
        work = self._queue.works.get(request_id)
        if work is None:
            return _flat_error(404, "There is no such request", "not_found")
        work.asked_status += 1
        if suffered := self._polling_fault(work):
            return suffered
        body: dict[str, Any] = {
            "status": work.state,
            "request_id": work.request_id,
            "response_url": work.url(),
            "status_url": work.url("/status"),
            "cancel_url": work.url("/cancel"),
            "logs": _logs(work) if logs in {"1", "true", "True"} else None,
        }
        if work.state == "IN_QUEUE":
            body["queue_position"] = self._queue.position(work)
        if work.answer is not None:
            body["metrics"] = {"inference_time": work.worked_s}
            if work.answer.error is not None:
                body["error"] = work.answer.error
                body["error_type"] = work.answer.body.get("error_type")
        return _json(200 if work.state == "COMPLETED" else 202, body, work)

    async def result(self, request: Request, request_id: str) -> Response:
        """What a finished request came to."""
        if refusal := self._unauthorized(request):
            return refusal
        work = self._queue.works.get(request_id)
        if work is None:
            return _flat_error(404, "There is no such request", "not_found")
        if suffered := self._polling_fault(work):
            return suffered
        if work.answer is None:
            return _json(400, {"detail": "Request is still in progress"}, work)
        if work.faults.renews_links is not None and self._queue.links_are_dead(work):
            await self._queue.renew_links(work, lifetime_s=work.faults.renews_links)
        return _json(work.answer.status, work.answer.body, work, dict(work.answer.headers))

    async def cancel(self, request: Request, request_id: str) -> Response:
        """Ask for a request to be stopped."""
        if refusal := self._unauthorized(request):
            return refusal
        work = self._queue.works.get(request_id)
        if work is None:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        if self._queue.cancel(work):
            return _json(202, {"status": "CANCELLATION_REQUESTED"}, work)
        return _json(400, {"status": "ALREADY_COMPLETED"}, work)

    async def delete_payloads(self, request: Request, request_id: str) -> Response:
        """Forget a request and delete its files, as fal's platform does."""
        if refusal := self._unauthorized(request):
            return refusal
        work = self._queue.works.get(request_id)
        if work is None or work.answer is None:
            return _flat_error(404, "There is no such request", "not_found")
        deleted = self._queue.forget(work)
        results = [
            {"link": f"{work.base_url}/files/{token}", "exception": None} for token in deleted
        ]
        return _json(200, {"cdn_delete_results": results}, work)

    async def _take(self, work: Work, *, struck: bool) -> Response:
        try:
            self._queue.accept(work)
        except QueueFull:
            later = {"Retry-After": "1"}
            return _flat_error(429, "Too many requests are open", "too_many_requests", later)
        self._ledger.note_taken(work.origin)
        if work.faults.webhook == "early":
            async with asyncio.timeout(_EARLY_WEBHOOK_DEADLINE_S):
                await work.called_back.wait()
        return self._taken(work) if struck else _taken_answer(work)

    def _unauthorized(self, request: Request) -> Response | None:
        expected = f"Key {self._settings.key.get_secret_value()}"
        given = request.headers.get("authorization", "")
        if hmac.compare_digest(expected.encode(), given.encode()):
            return None
        detail = "Cannot access application. Authentication is required to access this application."
        return JSONResponse({"detail": detail}, 401)

    def _lifetime_s(self, request: Request, faults: Faults) -> float:
        if faults.link_lifetime_s is not None:
            return faults.link_lifetime_s
        preference = request.headers.get("x-fal-object-lifecycle-preference")
        if preference is not None:
            try:
                wished = _Lifecycle.model_validate_json(preference).expiration_duration_seconds
            except ValidationError:
                wished = None  # fal ignores what it cannot read
            if wished is not None:
                return wished
        return self._settings.link_lifetime_s

    def _taken(self, work: Work) -> Response:
        answer = _taken_answer(work)
        match work.faults.submit:
            case "drop_taken":
                return Cut(abrupt=True)
            case "cut_answer":
                whole = bytes(answer.body)
                headers = {"content-type": "application/json"}
                half = whole[: len(whole) // 2]
                return Cut(raw_answer(200, headers, half, announced_bytes=len(whole)))
            case "never_answer":
                return Silence(self._stopping)
            case "html":
                return HTMLResponse(_PAGE)
            case "foreign_urls":
                return _taken_answer(work, base_url="https://fal.example")
            case "drop_untaken" | None:
                return answer

    def _polling_fault(self, work: Work) -> Response | None:
        faults = work.faults
        if faults.poll is None and faults.poll_status is None:
            return None
        if not self._ledger.strikes("poll", work.request_id, faults.poll_times):
            return None
        if faults.poll_status is not None:
            return HTMLResponse(_PAGE, faults.poll_status)
        match faults.poll:
            case "drop":
                return Cut(abrupt=True)
            case "never_answer":
                return Silence(self._stopping)
            case "html" | None:
                return HTMLResponse(_PAGE)


def _untaken(faults: Faults) -> Response | None:
    """How a submission is turned away, where it is."""
    if faults.submit_status is not None:
        headers = {"Retry-After": after} if (after := faults.submit_retry_after) else {}
        return _flat_error(faults.submit_status, "Told to refuse", "told_to_refuse", headers)
    return Cut(abrupt=True) if faults.submit == "drop_untaken" else None


def _taken_answer(work: Work, *, base_url: str | None = None) -> JSONResponse:
    def url(rest: str = "") -> str:
        return work.url(rest).replace(work.base_url, base_url or work.base_url, 1)

    body = {
        "status": "IN_QUEUE",
        "request_id": work.request_id,
        "response_url": url(),
        "status_url": url("/status"),
        "cancel_url": url("/cancel"),
        "queue_position": 0,
    }
    return _json(200, body, work)


def _json(
    status: int,
    body: Mapping[str, Any],
    work: Work,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    return JSONResponse(body, status, {"X-Fal-Request-Id": work.request_id, **(headers or {})})


def _flat_error(
    status: int, detail: str, kind: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    named = {"X-Fal-Error-Type": kind, **(headers or {})}
    return JSONResponse({"detail": detail, "error_type": kind}, status, named)


def _input_error(error: ValidationError | ValueError) -> JSONResponse:
    if isinstance(error, ValidationError):
        details = [
            {"loc": ["body", *item["loc"]], "msg": item["msg"], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False)
        ]
    else:
        details = [{"loc": ["body"], "msg": "The body is not JSON", "type": "json_invalid"}]
    return JSONResponse({"detail": details}, 422, {"X-Fal-Retryable": "false"})


def _app_of(model: str) -> str:
    """Owner and alias, after a namespace where there is one: what status URLs are made of."""
    parts = model.split("/")
    return "/".join(parts[:3] if parts[0] in {"workflows", "comfy"} else parts[:2])


def _origin(request: Request, webhook_url: str | None, body: bytes) -> str:
    generation = request.headers.get("x-velro-generation-id")
    return generation or webhook_url or hashlib.sha256(body).hexdigest()


def _logs(work: Work) -> list[dict[str, str]]:
    return [{"message": f"{work.state.lower()}: {work.input.prompt[:80]}", "level": "INFO"}]


async def _body(request: Request, max_bytes: int) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            return None
    return bytes(body)
