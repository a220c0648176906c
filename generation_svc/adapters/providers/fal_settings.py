"""What the fal adapter is set up with, for fal itself and for whatever speaks its protocol."""

from __future__ import annotations

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

FAL_QUEUE_URL = "https://queue.fal.run"
FAL_PLATFORM_URL = "https://api.fal.ai/v1"
# https://docs.fal.ai/model-endpoints/webhooks
FAL_JWKS_URL = "https://rest.fal.ai/.well-known/jwks.json"


class FalSettings(BaseModel):
    """Where fal is, who we are there, and how patient we are.

    Attributes:
        queue_url: where work is submitted.
        key: sent as `Authorization: Key …`, to the queue's host and `allowed_hosts` alone.
        platform_url: where payloads are deleted.
        admin_key: what deleting takes, sent to the platform alone; None: `key`.
        allowed_hosts: further hosts (`host` or `host:port`) whose URLs in answers are used.
        allow_http: use plain http with these hosts; for the sandbox on a network of our own.
        jwks_url: where the keys of webhooks are. The key is not sent there.
        webhook_user_id: fal's id of our account; webhooks signed for others are refused.
        object_lifetime_s: how long fal is asked to keep outputs.
        connect_timeout_s: how long a connection may take to be made.
        submit_deadline_s: how long a submission may take in all.
        poll_deadline_s: the same for any other request.
        max_answer_bytes: the largest answer that is read.
        jwks_max_age_s: how long keys are believed; fal allows 24 h.
        jwks_refresh_wait_s: the shortest time between two fetches of the keys, so that forged
            callbacks cannot make us hammer their server.
        webhook_tolerance_s: how far a callback's time may be from ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_url: str = FAL_QUEUE_URL
    key: SecretStr
    platform_url: str = FAL_PLATFORM_URL
    admin_key: SecretStr | None = None
    allowed_hosts: tuple[str, ...] = ()
    allow_http: bool = False
    jwks_url: str = FAL_JWKS_URL
    webhook_user_id: str | None = None
    object_lifetime_s: int = Field(default=7 * 24 * 3600, ge=60)
    connect_timeout_s: float = Field(default=5.0, gt=0)
    submit_deadline_s: float = Field(default=30.0, gt=0)
    poll_deadline_s: float = Field(default=30.0, gt=0)
    max_answer_bytes: int = Field(default=8 * 1024**2, ge=1024)
    jwks_max_age_s: float = Field(default=24 * 3600.0, gt=0, le=24 * 3600.0)
    jwks_refresh_wait_s: float = Field(default=30.0, ge=0)
    webhook_tolerance_s: float = Field(default=300.0, gt=0, le=300.0)

    @model_validator(mode="after")
    def _reachable(self) -> FalSettings:
        for name in ("queue_url", "jwks_url", "platform_url"):
            url = httpx.URL(getattr(self, name))
            if url.scheme != "https" and not (self.allow_http and url.scheme == "http"):
                raise ValueError(f"{name} must be https, or http with allow_http: {url}")
        return self

    @property
    def deleting_key(self) -> SecretStr:
        """The key that deletes."""
        return self.admin_key or self.key


class AllowedUrls:
    """The URLs that the key may be sent to."""

    def __init__(self, settings: FalSettings) -> None:
        queue = httpx.URL(settings.queue_url)
        self._schemes = {"https", "http"} if settings.allow_http else {"https"}
        self._origins = {(queue.host, _port(queue))}
        for host in settings.allowed_hosts:
            for scheme in self._schemes:
                url = httpx.URL(f"{scheme}://{host}")
                self._origins.add((url.host, _port(url)))

    def parse(self, url: str) -> httpx.URL | None:
        """The URL as httpx will use it, or None where it leads elsewhere.

        Parsed by the library that sends the request, so that the two cannot read it differently.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            return None
        usable = (
            parsed.scheme in self._schemes
            and not parsed.userinfo
            and (parsed.host, _port(parsed)) in self._origins
        )
        return parsed if usable else None


def _port(url: httpx.URL) -> int | None:
    return url.port or {"https": 443, "http": 80}.get(url.scheme)
