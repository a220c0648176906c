"""What names resolve to, where links lead, and who gets to see a key: over real connections."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed
from shared.media.fetch import Credentials, MediaFetcher, MediaSource
from shared.media.guard import Blocked, CheckedResolver, Guard
from shared.media.settings import MediaSettings
from shared.media.spool import Spool
from tests.hosts.hostile import HostileHost, answers, hostile_host, redirects
from tests.hosts.names import ScriptedNames, certificate
from tests.storage_media import picture

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

BODY = picture("fox")
NAMES = ("media.test", "other.test")
REFUSED = [
    ("127.0.0.1",),
    ("10.0.0.1",),
    ("169.254.169.254",),
    ("100.100.100.200",),
    ("0.0.0.0",),  # noqa: S104 - an address to refuse, and none to bind to
    ("224.0.0.1",),
    ("255.255.255.255",),
    ("::1",),
    ("::",),
    ("fe80::1%eth0",),
    ("fe80::1",),
    ("fd00:ec2::254",),
    ("::ffff:127.0.0.1",),
    ("::127.0.0.1",),
    ("64:ff9b::a9fe:a9fe",),
    ("64:ff9b:1::a00:1",),
    ("2002:a9fe:a9fe::1",),
    ("2001:0:7f00:1::1",),
    ("93.184.215.14", "127.0.0.1"),
    ("2606:4700::1111", "::ffff:10.0.0.1"),
]


@dataclass
class Reach:
    host: HostileHost
    other: HostileHost
    names: ScriptedNames
    fetcher: MediaFetcher

    async def fetch(self, url: str, credentials: Credentials | None = None) -> bytes:
        source = MediaSource(url=url, provider="test", credentials=credentials)
        async with self.fetcher.fetched(source) as spooled:
            return spooled.path.read_bytes()

    async def blocked(self, url: str) -> Blocked:
        with pytest.raises(Blocked) as blocked:
            await self.fetch(url)
        return blocked.value


@asynccontextmanager
async def reaching(
    tmp_path: Path, names: dict[str, list[tuple[str, ...]]]
) -> AsyncGenerator[Reach]:
    """Two https hosts whose private addresses the settings allow, under names that are scripted."""
    server_tls, client_tls = certificate(tmp_path, *NAMES)
    async with hostile_host(server_tls) as host, hostile_host(server_tls) as other:
        settings = MediaSettings(
            media_hosts={"test": ("*.public.test",)},
            media_http_hosts=(
                f"media.test:{host.port}",
                f"other.test:{other.port}",
                f"127.0.0.1:{host.port}",
            ),
            spool_dir=tmp_path / "spool",
        )
        resolver = ScriptedNames(names)
        with Spool(settings.spool_dir, max_bytes=1_000_000) as spool:
            fetcher = MediaFetcher(settings, spool, resolver=resolver, tls=client_tls)
            async with fetcher:
                yield Reach(host, other, resolver, fetcher)


@pytest.fixture
async def reach(tmp_path: Path) -> AsyncGenerator[Reach]:
    here = [("127.0.0.1",)]
    async with reaching(tmp_path, {"media.test": here, "other.test": list(here)}) as found:
        yield found


@pytest.mark.parametrize("addresses", REFUSED, ids=str)
async def test_a_public_name_with_an_address_that_is_not_is_blocked_before_connecting(
    tmp_path: Path, addresses: tuple[str, ...]
) -> None:
    async with reaching(tmp_path, {"a.public.test": [addresses]}) as found:
        blocked = await found.blocked("https://a.public.test/a.png")
        assert blocked.reason is ReasonCode.BLOCKED_ADDRESS
        assert "a.public.test resolves to" in blocked.detail
        assert found.host.seen == []


async def test_a_name_is_asked_once_and_the_answer_that_was_checked_is_connected_to(
    tmp_path: Path,
) -> None:
    # A second question would be answered with an address at which nobody listens.
    async with reaching(tmp_path, {"media.test": [("127.0.0.1",), ("127.0.0.2",)]}) as found:
        found.host.does(answers(BODY))
        assert await found.fetch(found.host.url(name="media.test")) == BODY
        assert found.names.asked == ["media.test"]


async def test_a_name_that_changes_its_mind_between_two_fetches_is_checked_again(
    tmp_path: Path,
) -> None:
    async with reaching(tmp_path, {"media.test": [("127.0.0.1",), ("169.254.169.254",)]}) as found:
        found.host.does(answers(BODY))
        url = found.host.url(name="media.test")
        assert await found.fetch(url) == BODY
        assert "credentials" in (await found.blocked(url)).detail


async def test_a_name_that_changes_its_mind_between_a_cut_and_the_rest_is_checked_again(
    tmp_path: Path,
) -> None:
    async with reaching(tmp_path, {"media.test": [("127.0.0.1",), ("169.254.169.254",)]}) as found:
        found.host.does(answers(BODY, ETag='"v1"', cut_after=100), answers(BODY))
        await found.blocked(found.host.url(name="media.test"))
        assert len(found.host.seen) == 1


async def test_a_name_that_does_not_resolve_is_no_source(reach: Reach) -> None:
    with pytest.raises(CopyFailed) as failed:
        await reach.fetch("https://gone.public.test/a.png")
    assert failed.value.reason is ReasonCode.SOURCE_UNAVAILABLE


async def test_a_name_without_addresses_is_no_source(tmp_path: Path) -> None:
    async with reaching(tmp_path, {"a.public.test": [()]}) as found:
        with pytest.raises(CopyFailed) as failed:
            await found.fetch("https://a.public.test/a.png")
    assert failed.value.reason is ReasonCode.SOURCE_UNAVAILABLE


async def test_a_certificate_for_another_name_is_no_source(tmp_path: Path) -> None:
    # Whoever answers for a name has to prove it: also at the address that was checked.
    async with reaching(tmp_path, {"media.test": [("127.0.0.1",)]}) as found:
        found.host.does(answers(BODY))
        settings = MediaSettings(
            media_http_hosts=(f"evil.test:{found.host.port}",), spool_dir=tmp_path / "spool"
        )
        _, trusted = certificate(tmp_path, "unrelated.test")
        names = ScriptedNames({"evil.test": [("127.0.0.1",)]})
        with Spool(settings.spool_dir, max_bytes=1000) as spool:
            async with MediaFetcher(settings, spool, resolver=names, tls=trusted) as fetcher:
                url = found.host.url(name="evil.test")
                with pytest.raises(CopyFailed) as failed:
                    async with fetcher.fetched(MediaSource(url=url, provider="test")):
                        pass
        assert failed.value.reason is ReasonCode.SOURCE_UNAVAILABLE
        assert found.host.seen == []


async def test_three_redirects_are_followed(reach: Reach) -> None:
    for number in range(3):
        reach.host.does(redirects(f"/{number + 1}"), path=f"/{number}")
    reach.host.does(answers(BODY), path="/3")
    assert await reach.fetch(reach.host.url("/0", name="media.test")) == BODY


async def test_a_fourth_redirect_is_not(reach: Reach) -> None:
    for number in range(4):
        reach.host.does(redirects(f"/{number + 1}"), path=f"/{number}")
    reach.host.does(answers(BODY), path="/4")
    with pytest.raises(CopyFailed) as failed:
        await reach.fetch(reach.host.url("/0", name="media.test"))
    assert failed.value.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert len(reach.host.seen) == 4


async def test_a_circle_ends(reach: Reach) -> None:
    reach.host.does(redirects("/a.png"))
    with pytest.raises(CopyFailed, match="redirects"):
        await reach.fetch(reach.host.url(name="media.test"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "gopher://media.test/_x",
        "ftp://media.test/a.png",
        "data:image/png;base64,AAAA",
        "http://169.254.169.254/latest/meta-data/iam/",
        "https://169.254.169.254/",
        "https://evil.test/a.png",
        "//evil.test/a.png",
        "https://media.test@evil.test/",
        "http://2130706433/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "http://localhost:22/",
        "https://media.test:22/",
        "\\\\evil.test\\a",
        "http://[",
    ],
)
async def test_a_redirect_is_checked_like_a_link(reach: Reach, location: str, status: int) -> None:
    reach.host.does(redirects(location, status=status))
    assert (await reach.blocked(reach.host.url(name="media.test"))).detail
    assert len(reach.host.seen) == 1


async def test_a_redirect_to_nowhere_is_no_source(reach: Reach) -> None:
    reach.host.does(answers(status=302))
    with pytest.raises(CopyFailed):
        await reach.fetch(reach.host.url(name="media.test"))


async def test_the_name_behind_a_redirect_is_checked_too(tmp_path: Path) -> None:
    names = {"media.test": [("127.0.0.1",)], "other.test": [("169.254.169.254",)]}
    async with reaching(tmp_path, names) as found:
        found.host.does(redirects(found.other.url(name="other.test")))
        assert "credentials" in (await found.blocked(found.host.url(name="media.test"))).detail
        assert found.other.seen == []


async def test_a_key_is_sent_to_its_own_origin_alone(reach: Reach) -> None:
    reach.host.does(redirects(reach.other.url(name="other.test")))
    reach.other.does(answers(BODY))
    url = reach.host.url(name="media.test")
    key = Credentials(URL(url).origin(), {"Authorization": "Key secret"})
    assert await reach.fetch(url, key) == BODY
    assert reach.host.headers_seen("Authorization") == ["Key secret"]
    assert reach.other.headers_seen("Authorization") == [None]


async def test_a_key_is_not_sent_to_another_port_or_name_of_the_same_machine(
    reach: Reach,
) -> None:
    reach.host.does(redirects(f"https://127.0.0.1:{reach.host.port}/b"))
    reach.host.does(answers(BODY), path="/b")
    url = reach.host.url(name="media.test")
    key = Credentials(URL(url).origin(), {"Authorization": "Key secret"})
    assert await reach.fetch(url, key) == BODY
    assert reach.host.headers_seen("Authorization") == ["Key secret", None]


async def test_cookies_are_not_kept(reach: Reach) -> None:
    reach.host.does(answers(BODY, Set_Cookie="session=1; Path=/"))
    url = reach.host.url(name="media.test")
    assert await reach.fetch(url) == await reach.fetch(url) == BODY
    assert reach.host.headers_seen("Cookie") == [None, None]


async def test_a_proxy_of_the_environment_is_not_asked(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    reach.host.does(answers(BODY))
    assert await reach.fetch(reach.host.url(name="media.test")) == BODY


async def test_nothing_is_handed_out_unless_every_answer_is_good() -> None:
    names = ScriptedNames({"a.test": [("8.8.8.8", "10.0.0.1")], "b.test": [("8.8.8.8",)]})
    resolver = CheckedResolver(Guard({}, frozenset()), names)
    with pytest.raises(Blocked):
        await resolver.resolve("a.test", 443)
    assert [answer["host"] for answer in await resolver.resolve("b.test", 443)] == ["8.8.8.8"]
