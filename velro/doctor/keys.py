"""The keys that expire or are mistyped: of providers, and of what callbacks are signed with."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx

from generation_svc.adapters.providers.fal import sandbox_settings
from generation_svc.adapters.providers.fal_settings import FalSettings
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from generation_svc.settings import GenerationSettings

_TIMEOUT_S: Final = 4.0
# The state of a request that never was: costs nothing, and whoever has no key is not told even
# that there is none.
_NO_REQUEST: Final = "fal-ai/flux/requests/00000000-0000-0000-0000-000000000000/status"
_REFUSED: Final = frozenset({401, 403})
_SERVER_ERROR: Final = 500
# What 128 random bits are in hexadecimal.
_SHORTEST_SECRET: Final = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """The generation service's settings, and a way to ask providers."""

    settings: GenerationSettings
    http: httpx.AsyncClient


def keys_part(settings: GenerationSettings) -> Part[Any]:
    """Every provider that is turned on, and the webhooks."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Keys]:
        async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S) as http:
            yield Keys(settings, http)

    checks: dict[str, Callable[[Keys], Awaitable[Verdict]]] = {"webhook signing": _signing}
    for name, provider in _providers(settings).items():
        checks[name] = partial(_provider_key, provider)
        if settings.webhook_base_url is not None:
            checks[f"{name} webhooks"] = partial(_webhook_keys, provider)
    return Part(
        name="keys", opened=opened, checks=checks, advice="see that the provider can be reached"
    )


def _providers(settings: GenerationSettings) -> dict[str, FalSettings]:
    found: dict[str, FalSettings] = {}
    if settings.fal_key is not None:
        found["fal"] = FalSettings(key=settings.fal_key, webhook_user_id=settings.fal_user_id)
    if settings.sandbox_url is not None:
        found["sandbox"] = sandbox_settings(str(settings.sandbox_url), settings.sandbox_key)
    return found


async def _signing(keys: Keys) -> Verdict:
    settings = keys.settings
    if settings.webhook_base_url is None:
        return yellow(
            "no webhooks: results are polled for, and a paid call whose answer was lost is made "
            "again",
            "set VELRO_WEBHOOK_BASE_URL and VELRO_WEBHOOK_SECRET, where providers can reach you",
        )
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    if len(secret) < _SHORTEST_SECRET:
        return yellow(
            f"VELRO_WEBHOOK_SECRET has {len(secret)} characters and may be guessed",
            "set it to `openssl rand -hex 32`, the same for every replica; callbacks on their way "
            "are then refused, and their results polled for",
        )
    return green("callback URLs are signed")


async def _provider_key(provider: FalSettings, keys: Keys) -> Verdict:
    url = f"{provider.queue_url.rstrip('/')}/{_NO_REQUEST}"
    key = provider.key.get_secret_value()
    answer = await keys.http.get(url, headers={"Authorization": f"Key {key}"})
    if answer.status_code in _REFUSED:
        return red(
            f"the key is refused ({answer.status_code}): every generation fails",
            "make a new key with the provider, and restart the generation service with it",
        )
    if answer.status_code >= _SERVER_ERROR:
        return yellow(f"unknown: the provider answers {answer.status_code}", "try again later")
    return green("the key is accepted")


async def _webhook_keys(provider: FalSettings, keys: Keys) -> Verdict:
    answer = await keys.http.get(provider.jwks_url)
    try:
        known = len(answer.json()["keys"])
    except (ValueError, LookupError, TypeError):
        known = 0
    if not known:
        return red(
            f"{provider.jwks_url} holds no keys ({answer.status_code}): callbacks are refused",
            "let the generation service reach that address",
        )
    return green(f"{known} key(s) to check callbacks with")
