"""Reads what fal says: media out of any model's answer, and errors in both of their shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from generation_svc.application.provider import Failed, ProviderOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from generation_svc.adapters.providers.fal_http import HttpAnswer, Json

log = structlog.get_logger()

# Errors end in events, whose size has a limit.
_MAX_DETAIL_CHARS = 2000
_MAX_CODE_CHARS = 100
_MAX_MEDIA_TYPE_CHARS = 255
# What these say is never billed. Of the rest fal says that 5xx is not and 422 may be.
_UNBILLED_STATUSES = frozenset({401, 402, 403, 404, 413, 429})
_SERVER_ERROR = 500
# Beyond these a claim fits no integer of a database: nothing is built on it.
_TOO_WIDE = 2**31
_TOO_LARGE = 2**63


def outputs_of(payload: Json) -> tuple[ProviderOutput, ...]:
    """Every media file in a model's answer, in the answer's order, each URL once.

    Models differ (`images`, `image`, `video`, `audio_file`, `model_mesh`, deeper ones); a file is
    the same in all: an object with a `url` (https://docs.fal.ai/model-endpoints, schema `File`).
    """
    found: dict[str, ProviderOutput] = {}
    inline = 0
    for url, file in _files(payload):
        if url.startswith(("https://", "http://")):
            found.setdefault(url, _output(url, file))
        else:
            inline += 1
    if inline:
        # Only `sync_mode` makes these, and it is refused before it is submitted.
        log.warning("fal_media_without_link", count=inline)
    return tuple(found.values())


def _files(payload: Json) -> Iterator[tuple[str, dict[str, Json]]]:
    # A list as the stack: the depth of an answer is not ours to choose.
    left: list[Json] = [payload]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            url = node.get("url")
            if isinstance(url, str):
                yield url, node
            else:
                left.extend(reversed(node.values()))
        elif isinstance(node, list):
            left.extend(reversed(node))


def _output(url: str, file: Mapping[str, Json]) -> ProviderOutput:
    media_type = _text(file.get("content_type"))
    if media_type is not None and len(media_type) > _MAX_MEDIA_TYPE_CHARS:
        media_type = None
    return ProviderOutput(
        url=url,
        media_type=media_type,
        width=_count(file.get("width"), below=_TOO_WIDE),
        height=_count(file.get("height"), below=_TOO_WIDE),
        size_bytes=_count(file.get("file_size"), below=_TOO_LARGE),
        expires_at=_moment(file.get("expires_at")),
    )


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Json, *, below: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value < below else None


def _moment(value: Json) -> datetime | None:
    """Seconds since 1970 or ISO 8601 with an offset. fal says neither; the sandbox the first."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None
    return None


@dataclass(frozen=True, slots=True)
class FalError:
    """What an error answer says. `typed` is False where it is not in one of fal's shapes."""

    code: str
    detail: str
    retryable: bool
    billed: bool | None
    typed: bool

    def failed(self) -> Failed:
        """The same as the end of a generation."""
        return Failed(
            code=self.code, detail=self.detail, retryable=self.retryable, billed=self.billed
        )


def error_in(answer: HttpAnswer, *, said: str | None = None) -> FalError:
    """Read an error answer; `said` is used where it says nothing itself."""
    try:
        payload = answer.json()
    except ValueError:
        payload = None
    return read_error(payload, status=answer.status, headers=answer.headers, said=said)


def read_error(
    payload: Json, *, status: int, headers: Mapping[str, str], said: str | None = None
) -> FalError:
    """Read an error in either shape.

    Infrastructure: `{"detail": str, "error_type": str}`, the type also in `X-Fal-Error-Type`.
    Model: `{"detail": [{"loc", "msg", "type", …}, …]}`
    (https://docs.fal.ai/documentation/model-apis/request-errors and …/errors).

    Args:
        payload: the answer's JSON, None where it is none.
        status: its HTTP status.
        headers: its headers, looked up in lower case.
        said: what was said of it elsewhere, used where the answer says nothing.
    """
    body = payload if isinstance(payload, dict) else {}
    said_in_body = body.get("detail")
    code = _text(body.get("error_type")) or headers.get("x-fal-error-type")
    detail = _text(said_in_body)
    if isinstance(said_in_body, list):
        items = [item for item in said_in_body if isinstance(item, dict)]
        kinds = (kind for item in items if (kind := _text(item.get("type"))))
        code = code or next(kinds, None)
        detail = "; ".join(filter(None, map(_complaint, items))) or None
    retryable = headers.get("x-fal-retryable", "").lower()
    billed = False if status >= _SERVER_ERROR or status in _UNBILLED_STATUSES else None
    return FalError(
        code=(code or f"http_{status}")[:_MAX_CODE_CHARS],
        detail=(detail or said or f"the provider answered {status}")[:_MAX_DETAIL_CHARS],
        retryable=retryable == "true" if retryable else status >= _SERVER_ERROR,
        billed=billed,
        typed=code is not None,
    )


def _complaint(item: Mapping[str, Json]) -> str | None:
    """One item of a model's error: where, and what."""
    message, place = _text(item.get("msg")), item.get("loc")
    if message is None or not isinstance(place, list) or not place:
        return message
    return f"{'.'.join(map(str, place))}: {message}"


def status_in(said: str | None) -> int:
    """The HTTP status that a callback's error mentions; 500 where it names none."""
    mentioned = re.search(r"\b[45]\d\d\b", said or "")
    return int(mentioned.group()) if mentioned else _SERVER_ERROR
