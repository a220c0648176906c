from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from generation_svc.adapters.providers.fal_settings import AllowedUrls, FalSettings

KEY = SecretStr("a secret key")


def test_plain_http_is_refused_unless_it_is_asked_for() -> None:
    with pytest.raises(ValidationError):
        FalSettings(key=KEY, queue_url="http://127.0.0.1:9")
    FalSettings(
        key=KEY, queue_url="http://127.0.0.1:9", jwks_url="http://127.0.0.1:9/k", allow_http=True
    )


def test_the_key_does_not_show_where_settings_are_shown() -> None:
    assert "a secret key" not in repr(FalSettings(key=KEY))


@pytest.mark.parametrize(
    "url",
    [
        "https://queue.fal.run/fal-ai/flux/requests/1/status",
        "https://queue.fal.run:443/x",
        "https://QUEUE.fal.run/x",
        "https://spare.example:8443/x",
    ],
)
def test_the_key_goes_to_the_hosts_that_settings_name(url: str) -> None:
    settings = FalSettings(key=KEY, allowed_hosts=("spare.example:8443",))
    assert AllowedUrls(settings).parse(url) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://queue.fal.run/x",
        "https://queue.fal.run:8443/x",
        "https://queue.fal.run.evil.example/x",
        "https://evil.example/queue.fal.run",
        "https://queue.fal.run@evil.example/x",
        "https://me:pw@queue.fal.run/x",
        "https://evil.example\\@queue.fal.run/x",
        "https://evil.example#@queue.fal.run/x",
        "//queue.fal.run/x",
        "/x",
        "file:///etc/passwd",
        "ftp://queue.fal.run/x",
        "https://spare.example/x",
        "https://queue.fal.run\n.evil.example/",
        "https://[::1]/x",
        "",
    ],
)
def test_the_key_goes_nowhere_else(url: str) -> None:
    settings = FalSettings(key=KEY, allowed_hosts=("spare.example:8443",))
    assert AllowedUrls(settings).parse(url) is None
