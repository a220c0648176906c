"""One request with a deadline, which knows whether it left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping


_Model = TypeVar("_Model", bound=BaseModel)
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class NotSent(Exception):
    """Not a byte of the request left: no connection was made."""


class AnswerLost(Exception):
    """The request left, in part at least, and no whole answer came."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Json:
        """The body as JSON.

        Raises:
            ValueError: it is none, or nested beyond reason.
        """
        return cast("Json", from_json(self.body))


async def exchange(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL,
    *,
    deadline_s: float,
    max_answer_bytes: int,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> HttpAnswer:
    """Send one request, once, and read its answer whole.

    Raises:
        NotSent: it never left.
        AnswerLost: it left, and the answer is late, cut short, too large or no HTTP.
    """
    left = False

    async def trace(event: str, _info: Mapping[str, Any]) -> None:
        # httpcore's own word for the moment before the first byte is written
        # (https://www.encode.io/httpcore/extensions/#trace).
        nonlocal left
        left = left or event.endswith(".send_request_headers.started")

    try:
        async with (
            asyncio.timeout(deadline_s),
            client.stream(
                method, url, headers=headers, content=content, extensions={"trace": trace}
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > max_answer_bytes:
                    raise AnswerLost(f"the answer is larger than {max_answer_bytes} bytes")
    except (httpx.HTTPError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        if left:
            raise AnswerLost(why) from error
        raise NotSent(why) from error
    return HttpAnswer(response.status_code, response.headers, bytes(body))


def parse(model: type[_Model], answer: HttpAnswer) -> _Model | None:
    """Read an answer's body as such a model; None where it is none."""
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        return None
