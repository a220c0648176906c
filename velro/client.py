"""The HTTP API as the command line uses it: plain httpx, typed answers, sentences for errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
from httpx_sse import aconnect_sse
from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.errors import Refused, TryLater, in_words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

WATCH_S: Final = 300


class ApiAway(TryLater):
    """The generation service does not answer."""


class ApiRefused(Refused):
    """The generation service refused, with a problem's title and detail."""


class OutputView(BaseModel):
    """One output as the API shows it."""

    model_config = ConfigDict(extra="ignore")

    index: int
    url: str
    expires_at: AwareDatetime | None
    stored: bool
    sha256: str | None


class Flags(BaseModel):
    """The metadata that tells how storing went; what callers put beside it is not read here."""

    model_config = ConfigDict(extra="ignore")

    storage_retry_needed: bool
    fal_urls_temporary: bool
    requires_background_migration: bool
    storage_successful: bool
    migration_completed_at: AwareDatetime | None = None
    total_migrated_size: int | None = None
    migration_file_count: int | None = None


class Problem(BaseModel):
    """Why a generation failed."""

    model_config = ConfigDict(extra="ignore")

    code: str
    detail: str


class Generation(BaseModel):
    """A generation as the API shows it."""

    model_config = ConfigDict(extra="ignore")

    id: str
    status: str
    outputs: tuple[OutputView, ...]
    output_urls: tuple[str, ...]
    media_url: str | None
    metadata: Flags
    error: Problem | None
    position: int

    @property
    def finished(self) -> bool:
        """Whether the provider is done with it."""
        return self.status in {"completed", "failed", "cancelled"}


class Requested(BaseModel):
    """The answer to a request: its id, and the position of the log that holds it."""

    model_config = ConfigDict(extra="ignore")

    id: str
    position: int


class Part(BaseModel):
    """A part of the service, and what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    problem: str | None


class Readiness(BaseModel):
    """What `/readyz` says."""

    model_config = ConfigDict(extra="ignore")

    parts: dict[str, Part]


@dataclass(frozen=True, slots=True)
class Api:
    """A connection to one generation service. Use as an async context manager."""

    client: httpx.AsyncClient

    @classmethod
    def at(cls, url: str) -> Self:
        """The service at this address."""
        return cls(httpx.AsyncClient(base_url=url, timeout=30, trust_env=False))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def request(
        self,
        *,
        user_id: str,
        provider: str,
        model: str,
        input_: Mapping[str, Any],
        idempotency_key: str | None = None,
    ) -> Requested:
        """Ask for a generation.

        Raises:
            ApiAway, ApiRefused: with a sentence.
        """
        answer = await self._ask(
            "POST",
            "/v1/generations",
            json={"user_id": user_id, "provider": provider, "model": model, "input": dict(input_)},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )
        return Requested.model_validate_json(answer.content)

    async def get(self, generation_id: str, *, at_least: int | None = None) -> Generation:
        """One generation, as it is at a position of the log or later.

        Raises:
            ApiAway, ApiRefused: with a sentence.
        """
        params = {} if at_least is None else {"at_least": at_least}
        answer = await self._ask("GET", f"/v1/generations/{generation_id}", params=params)
        return Generation.model_validate_json(answer.content)

    async def events(self, generation_id: str) -> list[dict[str, Any]]:
        """The generation's history, oldest first.

        Raises:
            ApiAway, ApiRefused: with a sentence.
        """
        answer = await self._ask("GET", f"/v1/generations/{generation_id}/events")
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    async def watch(
        self, requested: Requested | Generation, *, until: str = "finished"
    ) -> AsyncGenerator[Generation]:
        """The generation each time it changes, until it is finished (or `stored`), for WATCH_S.

        Raises:
            ApiAway, ApiRefused: with a sentence.
        """
        path = f"/v1/generations/{requested.id}/watch"
        params = {
            "until": until,
            "at_least": str(requested.position),
            "timeout_s": str(WATCH_S),
        }
        try:
            async with aconnect_sse(self.client, "GET", path, params=params) as source:
                if not source.response.is_success:
                    await source.response.aread()
                _check(source.response)
                async for event in source.aiter_sse():
                    if event.event == "generation":
                        yield Generation.model_validate_json(event.data)
        except httpx.TransportError as error:
            raise ApiAway(f"the generation service ended the watch: {error}") from error

    async def problems(self) -> list[str]:
        """What keeps the service from its work, a sentence for each part; empty: nothing does.

        Raises:
            ApiAway: no answer.
        """
        answer = await self._answer("GET", "/readyz")
        parts = Readiness.model_validate_json(answer.content).parts
        return [f"{name}: {part.problem}" for name, part in parts.items() if part.problem]

    async def _ask(self, method: str, path: str, **rest: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        answer = await self._answer(method, path, **rest)
        _check(answer)
        return answer

    async def _answer(self, method: str, path: str, **rest: Any) -> httpx.Response:  # noqa: ANN401 - as above
        try:
            return await self.client.request(method, path, **rest)
        except httpx.TransportError as error:
            raise ApiAway(
                f"the generation service at {self.client.base_url} does not answer: "
                f"{in_words(error)}; "
                "start it with `velro up`, or say where it is in VELRO_API_URL"
            ) from error


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    if "problem+json" not in answer.headers.get("content-type", ""):
        raise ApiRefused(f"{answer.status_code} from {answer.request.url}")
    problem: dict[str, Any] = answer.json()
    sentence = f"{problem.get('title')}: {problem.get('detail') or ''}".rstrip(": ")
    for member in sorted(problem.keys() - {"type", "title", "status", "detail", "instance"}):
        sentence += f"; {member}: {problem[member]}"
    raise ApiAway(sentence) if answer.status_code >= 500 else ApiRefused(sentence)  # noqa: PLR2004 - HTTP
