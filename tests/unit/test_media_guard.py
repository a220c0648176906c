from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.reasons import ReasonCode
from shared.media.guard import Blocked, Guard

GUARD = Guard(
    {"fal": ("fal.media", "*.fal.media"), "other": ("cdn.other.example",)},
    frozenset({"127.0.0.1:8088", "minio.internal:9000", "[::1]:8088", "169.254.169.254:80"}),
)

HOSTILE = [
    # other schemes
    "http://fal.media/a.png",
    "ftp://fal.media/a.png",
    "file:///etc/passwd",
    "file://fal.media/etc/passwd",
    "gopher://fal.media/_x",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "ws://fal.media/",
    "wss://fal.media/",
    "s3://fal.media/key",
    "jar:https://fal.media!/a",
    "//fal.media/a.png",
    "fal.media/a.png",
    "/a.png",
    "https:",
    "https:/fal.media/a.png",
    "https:fal.media/a.png",
    "https:///a.png",
    "https://",
    "://fal.media/",
    "",
    # ports
    "https://fal.media:80/a.png",
    "https://fal.media:8443/a.png",
    "https://fal.media:0/a.png",
    "https://fal.media:65536/a.png",
    "https://fal.media:-443/a.png",
    "https://fal.media:443x/a.png",
    "https://fal.media:443:443/a.png",
    # user info, and what a sloppy reader takes for it
    "https://fal.media@evil.example/a.png",
    "https://user:pass@fal.media/a.png",
    "https://user@fal.media/a.png",
    "https://@fal.media/a.png",
    "https://evil.example#@fal.media/",
    "https://evil.example?@fal.media/",
    "https://evil.example/@fal.media/",
    "https://fal.media:443@evil.example/",
    "https://evil.example\\@fal.media/",
    "https://fal.media\\@evil.example/",
    "https://fal.media\\.evil.example/",
    "https:\\\\fal.media\\a.png",
    # hosts that are not on the list
    "https://evil.example/a.png",
    "https://fal.media.evil.example/a.png",
    "https://evilfal.media/a.png",
    "https://fal.medi/a.png",
    "https://media/a.png",
    "https://.fal.media/a.png",
    "https://..fal.media/a.png",
    "https://fal..media/a.png",
    "https://fal.media./a.png",
    "https://fal.media../a.png",
    "https://cdn.other.example/a.png",
    "https://localhost/a.png",
    "https://localhost.fal.media.localhost/a.png",
    # characters that fold into others, or into nothing
    "https://f\u0430l.media/a.png",
    "https://fal\u3002media/a.png",
    "https://fal\uff0emedia/a.png",
    "https://\u24d5\u24d0\u24db.media/a.png",
    "https://fal.medi\u0430/a.png",
    "https://fal.me\u00addia/a.png",
    "https://fal.media\u200b/a.png",
    "https://fal.media\u2044evil.example/a.png",
    "https://fal.media\uff03.evil.example/a.png",
    "https://\uff45vil.example/a.png",
    "https://fa\u0131.media/a.png",
    "https://xn--fl-8cd.media/a.png",
    "https://\uff11\uff12\uff17.0.0.1/a.png",
    # escapes and control characters
    "https://fal%2emedia/a.png",
    "https://fal.media%00.evil.example/a.png",
    "https://fal.media%2f.evil.example/a.png",
    "https://%66al.media/a.png",
    "https://fal.media\t/a.png",
    "https://fal\n.media/a.png",
    "https://fal.media\r\nHost: evil.example/a.png",
    "https://fal.media/a\r\nX-Header: 1",
    "https://fal.media/\x00",
    " https://fal.media/a.png",
    "https://fal .media/a.png",
    # addresses, however they are written
    "https://127.0.0.1/a.png",
    "https://169.254.169.254/latest/meta-data/",
    "https://2130706433/a.png",
    "https://0x7f000001/a.png",
    "https://017700000001/a.png",
    "https://0x7f.0.0.1/a.png",
    "https://0177.0.0.01/a.png",
    "https://127.1/a.png",
    "https://127.0.1/a.png",
    "https://0/a.png",
    "https://0x/a.png",
    "https://1.1.1.1/a.png",
    "https://8.8.8.8./a.png",
    "https://[::1]/a.png",
    "https://[::]/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://[::ffff:7f00:1]/a.png",
    "https://[::127.0.0.1]/a.png",
    "https://[64:ff9b::a9fe:a9fe]/a.png",
    "https://[2002:7f00:1::]/a.png",
    "https://[fd00:ec2::254]/a.png",
    "https://[fe80::1%25eth0]/a.png",
    "https://[fe80::1%eth0]/a.png",
    "https://[::1/a.png",
    "https://::1/a.png",
    "https://[fal.media]/a.png",
    "https://[v1.fal]/a.png",
    "https://1.2.3.4.fal.media.1/a.png",
    # too much of it
    "https://fal.media/" + "a" * 9000,
    "https://" + "a" * 64 + ".fal.media/a.png",
    "https://" + "a." * 130 + "fal.media/a.png",
    "https://-a.fal.media/a.png",
    "https://a-.fal.media/a.png",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_blocked_with_a_reason(url: str) -> None:
    with pytest.raises(Blocked) as blocked:
        GUARD.checked(url, provider="fal")
    assert blocked.value.reason is ReasonCode.BLOCKED_ADDRESS
    assert blocked.value.detail
    assert "\n" not in blocked.value.detail


def test_there_are_more_than_eighty_of_them() -> None:
    assert len(set(HOSTILE)) > 80


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://fal.media/files/a.png", "fal.media"),
        ("https://fal.media:443/files/a.png", "fal.media"),
        ("https://v3.fal.media/files/a.png?token=x%2Cy&s=1#part", "v3.fal.media"),
        ("https://a.b.fal.media/", "a.b.fal.media"),
        ("HTTPS://V3.FAL.MEDIA/a.png", "v3.fal.media"),
        ("https://fal.media", "fal.media"),
    ],
)
def test_a_providers_own_link_is_fetched(url: str, host: str) -> None:
    assert GUARD.checked(url, provider="fal").host == host


def test_a_link_is_asked_for_as_it_was_signed() -> None:
    signed = "https://fal.media/a%2Cb.png?X-Amz-Signature=a%2Bb%2F&e=%7e"
    assert str(GUARD.checked(signed, provider="fal")) == signed


def test_a_provider_without_hosts_has_none() -> None:
    with pytest.raises(Blocked, match="not among the hosts"):
        GUARD.checked("https://fal.media/a.png", provider="unheard-of")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8088/a.png",
        "http://minio.internal:9000/a.png",
        "https://minio.internal:9000/a.png",
        "http://[::1]:8088/a.png",
    ],
)
def test_what_the_settings_name_by_host_and_port_may_be_plain_and_private(url: str) -> None:
    assert GUARD.checked(url, provider="fal").path == "/a.png"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8089/a.png",
        "http://127.0.0.1/a.png",
        "http://minio.internal/a.png",
        "http://x.minio.internal:9000/a.png",
        "http://2130706433:8088/a.png",
        "http://[::ffff:127.0.0.1]:8088/a.png",
        "ftp://127.0.0.1:8088/a.png",
        "http://user@127.0.0.1:8088/a.png",
    ],
)
def test_a_private_host_is_opened_for_its_own_name_and_port_alone(url: str) -> None:
    with pytest.raises(Blocked):
        GUARD.checked(url, provider="fal")


def test_metadata_is_refused_even_if_the_settings_name_it() -> None:
    with pytest.raises(Blocked, match="credentials"):
        GUARD.checked("http://169.254.169.254/latest/meta-data/", provider="fal")


def test_nothing_public_redirects_into_a_private_network() -> None:
    public = GUARD.checked("https://fal.media/a", provider="fal")
    with pytest.raises(Blocked, match="redirects to the private host"):
        GUARD.checked("http://127.0.0.1:8088/a.png", provider="fal", came_from=public)


def test_a_private_host_may_redirect_to_itself() -> None:
    private = GUARD.checked("http://127.0.0.1:8088/a", provider="fal")
    again = GUARD.checked("http://127.0.0.1:8088/b", provider="fal", came_from=private)
    assert again.path == "/b"


@given(st.text(max_size=60))
def test_no_text_passes_that_names_another_host(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/a.png", f"https://fal.media{text}"):
        try:
            passed = GUARD.checked(url, provider="fal")
        except Blocked:
            continue
        assert passed.scheme == "https"
        assert passed.port == 443
        assert passed.user is None
        assert passed.host == "fal.media" or str(passed.host).endswith(".fal.media")
