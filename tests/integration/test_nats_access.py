"""Servers that let in who has what they ask for: TLS, passwords, certificates, credentials."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from shared.messaging.access import AccessUnreadable, NatsAccess
from shared.messaging.connection import BrokerUnavailable, connected
from tests.guarded_nats import Issuer, Tenant, configured_nats, speaking_tls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

PASSWORD = "not-to-be-seen"
LOGIN = f"authorization {{ user: velro, password: {PASSWORD} }}"


async def let_in(access: NatsAccess, *, timeout_s: float = 10.0) -> bool:
    """Whether it goes over TLS; the server has to let in, and answer."""
    async with connected(access, name="test", timeout_s=timeout_s) as nats:
        await nats.flush(5)
        return nats.encrypted


async def test_tls_with_a_password_lets_in_and_the_password_is_in_no_message(
    tmp_path: Path,
) -> None:
    issuer = Issuer(tmp_path)
    with configured_nats(tmp_path, speaking_tls(issuer), LOGIN) as server:
        access = NatsAccess(
            (f"tls://velro:{PASSWORD}@localhost:{server.port}",), ca_file=issuer.ca_file
        )
        assert await let_in(access)
        # A server that speaks nothing else says so, and is believed.
        assert await let_in(replace(access, urls=(access.urls[0].replace("tls", "nats"),)))

        unknown = replace(access, ca_file=None)
        wrong = replace(access, urls=(access.urls[0].replace(PASSWORD, f"{PASSWORD}-either"),))
        for refused, why in ((unknown, "certificate verify failed"), (wrong, "Authorization")):
            with (
                capture_logs() as lines,
                pytest.raises(BrokerUnavailable, match=f"tls://localhost.*{why}") as told,
            ):
                await let_in(refused, timeout_s=2)
            assert PASSWORD not in str(told.value)
            assert PASSWORD not in str(lines)


async def test_a_certificate_is_shown_where_the_server_asks_for_one(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    config = speaking_tls(issuer, asking_for_certificates=True)
    with configured_nats(tmp_path, config) as server:
        without = NatsAccess((f"tls://localhost:{server.port}",), ca_file=issuer.ca_file)
        certificate, key = issuer.issue("velro")
        assert await let_in(replace(without, cert_file=certificate, key_file=key))
        with pytest.raises(BrokerUnavailable):
            await let_in(without, timeout_s=2)


async def test_a_connection_over_tls_that_the_server_closes_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(tmp_path)
    with configured_nats(tmp_path, speaking_tls(issuer)) as server:
        access = NatsAccess((f"tls://localhost:{server.port}",), ca_file=issuer.ca_file)
        with capture_logs() as lines:
            async with connected(access, name="test"):
                server.server.stop()
                await logged(lines, "nats_disconnected")
    assert not [line for line in caplog.messages if "eof_received" in line]


@asynccontextmanager
async def has_no_tls() -> AsyncGenerator[tuple[int, bytearray]]:
    """Greets as NATS does, without TLS; its port, and what it was told."""
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"auth_required": true, "max_payload": 1000}\r\n')
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


@pytest.mark.parametrize("asked_by", ["scheme", "issuer"])
async def test_nothing_is_said_in_the_clear_where_tls_was_asked_for(
    tmp_path: Path, asked_by: str
) -> None:
    issuer = Issuer(tmp_path)
    async with has_no_tls() as (port, heard):
        login = f"velro:{PASSWORD}@127.0.0.1:{port}"
        access = (
            NatsAccess((f"tls://{login}",))
            if asked_by == "scheme"
            else NatsAccess((f"nats://{login}",), ca_file=issuer.ca_file)
        )
        with pytest.raises(BrokerUnavailable, match="the server offers no TLS"):
            await let_in(access, timeout_s=1)
        assert heard == b""


async def test_one_login_is_used_at_every_server_of_a_cluster(tmp_path: Path) -> None:
    # Of addresses that a server tells nats-py knows no login.
    with configured_nats(tmp_path, LOGIN) as server:
        urls = (f"nats://velro:{PASSWORD}@127.0.0.1:1", f"nats://127.0.0.1:{server.port}")
        assert not await let_in(NatsAccess(urls))


async def test_credentials_let_in_and_are_read_again_when_the_connection_is_made_again(
    tmp_path: Path,
) -> None:
    tenant, file = Tenant.new(), tmp_path / "velro.creds"
    with configured_nats(tmp_path, tenant.config) as server:
        access = NatsAccess((f"nats://127.0.0.1:{server.port}",), creds_file=file)
        with pytest.raises(AccessUnreadable, match="VELRO_NATS_CREDS_FILE"):
            await let_in(access)
        file.write_text(Tenant.new().credentials())
        with pytest.raises(BrokerUnavailable, match="Authorization"):
            await let_in(access, timeout_s=1)

        yesterday = datetime.now(UTC) - timedelta(days=1)
        file.write_text(tenant.credentials(expires_at=yesterday))
        with pytest.raises(BrokerUnavailable, match=f"expired at {yesterday:%Y-%m-%d}"):
            await let_in(access, timeout_s=1)

        # The server ends what has expired.
        file.write_text(tenant.credentials(expires_at=datetime.now(UTC) + timedelta(seconds=3)))
        with capture_logs() as lines:
            async with connected(access, name="test") as nats:
                file.write_text("none any more")
                await logged(lines, "VELRO_NATS_CREDS_FILE")
                assert nats.problem is not None
                assert "VELRO_NATS_CREDS_FILE" in nats.problem
                file.write_text(tenant.credentials())
                await logged(lines, "nats_reconnected")
                await nats.flush(5)
                assert nats.problem is None


async def logged(lines: list[Any], what: str) -> None:
    async with asyncio.timeout(30):
        while what not in str(lines):  # noqa: ASYNC110 - structlog tells nobody of a line
            await asyncio.sleep(0.02)
