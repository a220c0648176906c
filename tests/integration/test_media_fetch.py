from __future__ import annotations

import asyncio
import gzip
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from shared.contracts.reasons import ReasonCode
from shared.media import transfer
from shared.media.copying import CopyFailed
from shared.media.fetch import MediaFetcher, MediaSource
from shared.media.settings import MediaSettings
from shared.media.spool import Spool
from tests.hosts.hostile import (
    HostileHost,
    answers,
    begins_and_hangs,
    chunked,
    dribbles,
    floods,
    hangs,
    hangs_up,
    hostile_host,
    ranged,
    says,
)
from tests.storage_media import picture

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.hosts.hostile import Act

BODY = picture("fox", size_bytes=200_000)
CUT = len(BODY) // 2


@dataclass
class Fetching:
    host: HostileHost
    fetcher: MediaFetcher
    spool_dir: Path

    async def fetch(self, *acts: Act, media_type: str | None = None) -> bytes:
        """What is in the spool when it is said to be there; nothing is left afterwards."""
        url = self.host.does(*acts)
        source = MediaSource(url=url, provider="test", media_type=media_type)
        try:
            async with self.fetcher.fetched(source) as spooled:
                found = spooled.path.read_bytes()
                assert spooled.size_bytes == len(found)
                assert spooled.sha256 == hashlib.sha256(found).hexdigest()
                return found
        finally:
            assert self.files() == []

    async def fails(self, *acts: Act, media_type: str | None = None) -> CopyFailed:
        with pytest.raises(CopyFailed) as failed:
            await self.fetch(*acts, media_type=media_type)
        assert failed.value.detail
        return failed.value

    def files(self) -> list[Path]:
        return [path for path in self.spool_dir.rglob("*") if path.is_file() and path.suffix == ""]


@asynccontextmanager
async def fetching(tmp_path: Path, **settings: object) -> AsyncGenerator[Fetching]:
    async with hostile_host() as host:
        told = {
            "media_http_hosts": (host.host,),
            "spool_dir": tmp_path,
            "media_timeout_s": 10.0,
            "media_max_bytes": 1_000_000,
            **settings,
        }
        chosen = MediaSettings.model_validate(told)
        with Spool(tmp_path, max_bytes=chosen.spool_max_bytes) as spool:
            async with MediaFetcher(chosen, spool) as fetcher:
                yield Fetching(host, fetcher, tmp_path)


@pytest.fixture(params=[transfer.HELD_BYTES, 5000], ids=["held", "spooled"])
async def plain(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Fetching]:
    """Small files are held in memory; with another bound they go the way of large ones."""
    monkeypatch.setattr(transfer, "HELD_BYTES", request.param)
    async with fetching(tmp_path) as found:
        yield found


async def test_a_file_is_there_as_it_was_sent(plain: Fetching) -> None:
    assert await plain.fetch(answers(BODY)) == BODY


async def test_nothing_but_bytes_as_they_are_is_asked_for(plain: Fetching) -> None:
    await plain.fetch(answers(BODY))
    (seen,) = plain.host.seen
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Cookie"] is None
    assert seen.headers["Authorization"] is None
    assert seen.headers["Range"] is None


async def test_a_cut_is_mended_with_the_rest_alone(plain: Fetching) -> None:
    whole = ranged(BODY, etag='"v1"')
    assert await plain.fetch(ranged(BODY, etag='"v1"', cut_after=CUT), whole) == BODY
    _, again = plain.host.seen
    assert again.headers["If-Range"] == '"v1"'
    assert 0 < int(again.headers["Range"].removeprefix("bytes=").removesuffix("-")) <= CUT


async def test_two_cuts_are_mended(plain: Fetching) -> None:
    acts = (
        ranged(BODY, etag='"v1"', cut_after=1000),
        ranged(BODY, etag='"v1"', cut_after=1000),
        ranged(BODY, etag='"v1"'),
    )
    assert await plain.fetch(*acts) == BODY


async def test_a_cut_without_ranges_begins_anew(plain: Fetching) -> None:
    assert await plain.fetch(answers(BODY, cut_after=CUT), answers(BODY)) == BODY
    assert plain.host.headers_seen("Range") == [None, None]


async def test_a_weak_etag_is_no_reason_to_ask_for_the_rest(plain: Fetching) -> None:
    weak = 'W/"v1"'
    assert await plain.fetch(answers(BODY, ETag=weak, cut_after=CUT), answers(BODY)) == BODY
    assert plain.host.headers_seen("Range") == [None, None]


async def test_a_file_that_changed_meanwhile_is_never_half_old_and_half_new(
    plain: Fetching,
) -> None:
    other = picture("hen", size_bytes=190_000)
    old = ranged(BODY, etag='"v1"', cut_after=CUT)
    assert await plain.fetch(old, ranged(other, etag='"v2"')) == other


@pytest.mark.parametrize(
    "lie",
    [
        {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "ETag": '"v1"'},
        {"Content-Range": f"bytes {CUT}-{len(BODY) - 1}/{len(BODY)}", "ETag": '"v2"'},
        {"Content-Range": f"bytes {CUT}-{len(BODY)}/{len(BODY) + 1}", "ETag": '"v1"'},
        {"Content-Range": f"bytes {CUT}-{CUT + 9}/{len(BODY)}", "ETag": '"v1"'},
        {"Content-Range": "bytes */*", "ETag": '"v1"'},
        {"Content-Range": "pages 1-2/3", "ETag": '"v1"'},
        {"ETag": '"v1"'},
    ],
)
async def test_a_rest_that_is_another_files_is_not_appended(
    plain: Fetching, lie: dict[str, str]
) -> None:
    cut = ranged(BODY, etag='"v1"', cut_after=CUT)
    rest = answers(BODY[CUT:], status=206, headers=lie)
    assert await plain.fetch(cut, rest, answers(BODY)) == BODY
    assert len(plain.host.seen) == 3


async def test_no_more_of_the_range_is_there_begins_anew(plain: Fetching) -> None:
    cut = ranged(BODY, etag='"v1"', cut_after=CUT)
    assert await plain.fetch(cut, answers(status=416), answers(BODY)) == BODY


async def test_a_body_that_is_always_short_is_no_file(plain: Fetching) -> None:
    failed = await plain.fails(answers(BODY, announced=len(BODY) + 5))
    assert failed.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert 1 < len(plain.host.seen) < 10


async def test_a_body_that_is_longer_than_announced_is_asked_for_again(plain: Fetching) -> None:
    whole = BODY + bytes(100_000)
    assert await plain.fetch(answers(whole, announced=CUT, ETag='"v1"'), answers(whole)) == whole
    assert plain.host.headers_seen("Range") == [None, None]


async def test_a_body_that_is_always_longer_than_announced_is_no_file(plain: Fetching) -> None:
    failed = await plain.fails(answers(BODY + bytes(100_000), announced=len(BODY)))
    assert failed.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert "more came than the" in failed.detail
    assert 1 < len(plain.host.seen) < 10


async def test_chunks_that_end_are_a_file(plain: Fetching) -> None:
    assert await plain.fetch(chunked(BODY[:CUT], BODY[CUT:])) == BODY


async def test_chunks_that_do_not_end_are_not(plain: Fetching) -> None:
    assert await plain.fetch(chunked(BODY[:CUT], ended=False), chunked(BODY)) == BODY


async def test_a_body_that_ends_by_closing_is_believed_when_it_comes_twice(
    plain: Fetching,
) -> None:
    acts = (answers(BODY[:CUT], announced=None), answers(BODY, announced=None))
    assert await plain.fetch(*acts) == BODY
    assert len(plain.host.seen) == 3


@pytest.mark.parametrize(
    "act",
    [
        answers(b"\x89PNG\r\n\x1a\n", announced=1_000_001),
        floods(BODY),
        chunked(*[BODY] * 6),
        answers(BODY * 6, announced=None),
    ],
    ids=["announced", "without end", "in chunks", "by closing"],
)
async def test_what_is_too_large_is_given_up_at_the_limit(plain: Fetching, act: Act) -> None:
    failed = await plain.fails(act)
    assert failed.reason is ReasonCode.TOO_LARGE
    assert len(plain.host.seen) == 1


async def test_each_family_has_a_limit_of_its_own(tmp_path: Path) -> None:
    async with fetching(tmp_path, media_max_bytes_of={"image": 100_000}) as found:
        failed = await found.fails(chunked(BODY))
        assert failed.reason is ReasonCode.TOO_LARGE
        assert "image/png" in failed.detail


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, ReasonCode.SOURCE_EXPIRED),
        (410, ReasonCode.SOURCE_EXPIRED),
        (401, ReasonCode.SOURCE_FORBIDDEN),
        (403, ReasonCode.SOURCE_FORBIDDEN),
        (400, ReasonCode.SOURCE_UNAVAILABLE),
        (429, ReasonCode.SOURCE_UNAVAILABLE),
        (500, ReasonCode.SOURCE_UNAVAILABLE),
        (503, ReasonCode.SOURCE_UNAVAILABLE),
        (204, ReasonCode.SOURCE_UNAVAILABLE),
        (304, ReasonCode.SOURCE_UNAVAILABLE),
    ],
)
async def test_a_refusal_says_what_it_means(
    plain: Fetching, status: int, reason: ReasonCode
) -> None:
    failed = await plain.fails(answers(status=status))
    assert (failed.reason, failed.retry_after_s) == (reason, None)
    assert str(status) in failed.detail
    assert len(plain.host.seen) == 1


async def test_a_source_that_asks_for_seconds_of_peace_is_quoted(plain: Fetching) -> None:
    failed = await plain.fails(answers(status=429, Retry_After="17"))
    assert failed.retry_after_s == 17.0


async def test_a_source_that_asks_for_peace_until_a_date_is_quoted(plain: Fetching) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    failed = await plain.fails(answers(status=503, Retry_After=until))
    assert failed.retry_after_s is not None
    assert 60 < failed.retry_after_s <= 90


@pytest.mark.parametrize("said", ["soon", "-5", "", "1e9", "Wed, 99 Foo 2026 00:00:00 GMT"])
async def test_a_retry_after_that_says_nothing_is_as_if_not_said(
    plain: Fetching, said: str
) -> None:
    assert (await plain.fails(answers(status=429, Retry_After=said))).retry_after_s is None


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "identity, gzip"])
async def test_encoded_bytes_are_refused_and_never_unpacked(plain: Fetching, encoding: str) -> None:
    failed = await plain.fails(answers(gzip.compress(BODY), Content_Encoding=encoding))
    assert failed.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert encoding.lower() in failed.detail


async def test_bytes_said_to_be_as_they_are_are_taken(plain: Fetching) -> None:
    assert await plain.fetch(answers(BODY, Content_Encoding="Identity")) == BODY


async def test_silence_ends_with_the_deadline(tmp_path: Path) -> None:
    async with fetching(tmp_path, media_timeout_s=0.3) as found:
        assert (await found.fails(hangs)).reason is ReasonCode.TOO_SLOW


async def test_silence_in_the_middle_ends_with_the_window_and_the_rest_is_asked_for(
    tmp_path: Path,
) -> None:
    stuck = begins_and_hangs(BODY[:CUT], announced=len(BODY))
    async with fetching(tmp_path, media_window_s=0.2) as found:
        assert await found.fetch(stuck, answers(BODY)) == BODY


async def test_drops_at_a_time_are_given_up_before_the_deadline(tmp_path: Path) -> None:
    async with fetching(tmp_path, media_window_s=0.2, media_min_bytes_per_s=50_000.0) as found:
        failed = await found.fails(dribbles(BODY, piece_bytes=100, every_s=0.02))
        assert failed.reason is ReasonCode.TOO_SLOW
        assert "bytes/s" in failed.detail


async def test_slow_is_not_too_slow(tmp_path: Path) -> None:
    body = picture("snail")
    async with fetching(tmp_path, media_window_s=0.2, media_min_bytes_per_s=100.0) as found:
        assert await found.fetch(dribbles(body, piece_bytes=500, every_s=0.05)) == body


async def test_a_download_ends_with_its_budget(plain: Fetching) -> None:
    source = MediaSource(url=plain.host.does(hangs), provider="test", budget_s=0.2)
    with pytest.raises(CopyFailed) as failed:
        async with plain.fetcher.fetched(source):
            pass
    assert failed.value.reason is ReasonCode.TOO_SLOW


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 5000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
    ],
)
async def test_what_is_no_http_is_no_source(plain: Fetching, raw: bytes) -> None:
    assert (await plain.fails(says(raw))).reason is ReasonCode.SOURCE_UNAVAILABLE


async def test_a_connection_closed_without_a_word_is_tried_again(plain: Fetching) -> None:
    assert await plain.fetch(hangs_up, answers(BODY)) == BODY


async def test_nobody_at_home_is_no_source(plain: Fetching) -> None:
    async with hostile_host() as other:
        gone = other.port
    settings = MediaSettings(media_http_hosts=(f"127.0.0.1:{gone}",), spool_dir=plain.spool_dir)
    with Spool(plain.spool_dir, max_bytes=1000) as spool:
        async with MediaFetcher(settings, spool) as fetcher:
            source = MediaSource(url=f"http://127.0.0.1:{gone}/a.png", provider="test")
            with pytest.raises(CopyFailed) as failed:
                async with fetcher.fetched(source):
                    pass
    assert failed.value.reason is ReasonCode.SOURCE_UNAVAILABLE


async def test_an_empty_answer_is_no_file(plain: Fetching) -> None:
    assert (await plain.fails(answers(b""))).reason is ReasonCode.SOURCE_UNAVAILABLE


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><title>gone</title>" + b" " * 5000,
        b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
        b"PK\x03\x04" + bytes(5000),
        b"MZ" + bytes(5000),
    ],
)
async def test_what_is_no_media_is_refused_and_not_fetched_to_its_end(
    plain: Fetching, body: bytes
) -> None:
    failed = await plain.fails(begins_and_hangs(body + bytes(8000), announced=900_000))
    assert failed.reason is ReasonCode.MEDIA_TYPE_REFUSED
    assert failed.quarantine


async def test_cancelling_leaves_nothing_in_the_spool(
    plain: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "HELD_BYTES", 5000)
    url = plain.host.does(begins_and_hangs(BODY[:CUT], announced=len(BODY)))

    async def fetch() -> None:
        async with plain.fetcher.fetched(MediaSource(url=url, provider="test")):
            pass

    running = asyncio.create_task(fetch())
    async with asyncio.timeout(5):
        while not plain.files():  # noqa: ASYNC110 - a file's state has no event to wait for
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert plain.files() == []
