"""What lets us in to NATS is read from its files, told where it cannot be, and never shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.messaging.access import AccessUnreadable, NatsAccess
from shared.settings import BadSettings, LogSettings, loaded
from shared.tls import CertificatesUnreadable
from tests.guarded_nats import Issuer, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

SOME_DAY = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def text() -> str:
    return Tenant.new().credentials(expires_at=SOME_DAY)


def credentials_file(directory: Path, text: str) -> NatsAccess:
    file = directory / "user.creds"
    file.write_text(text)
    return NatsAccess(("nats://x",), creds_file=file)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_credentials_file_is_read_however_its_lines_end(
    tmp_path: Path, text: str, ends: str
) -> None:
    found = credentials_file(tmp_path, text.replace("\n", ends)).credentials()
    assert found is not None
    assert found.jwt in text
    assert found.expires_at == SOME_DAY


def test_one_without_an_end_never_expires(tmp_path: Path) -> None:
    found = credentials_file(tmp_path, Tenant.new().credentials()).credentials()
    assert found is not None
    assert found.expires_at is None


def nothing(_: str) -> str:
    return ""


def half(text: str) -> str:
    return text.partition("***")[0]


def no_jwt(text: str) -> str:
    return text.replace("JWT-----\ney", "JWT-----\ney.Zm9v.", 1)


def mistyped(text: str) -> str:
    seed = text.split("SEED-----\n")[1]
    return text.replace(seed[:20], seed[:10] + seed[10:20][::-1])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (nothing, "holds no user JWT"),
        (half, "holds no user JWT with its seed"),
        (mistyped, "mistyped"),
        (no_jwt, "holds no user JWT"),
    ],
)
def test_one_that_holds_none_is_told_by_its_variable_and_not_shown(
    tmp_path: Path, text: str, change: Callable[[str], str], why: str
) -> None:
    access = credentials_file(tmp_path, change(text))
    named = f"VELRO_NATS_CREDS_FILE, .*user.creds.*{why}"
    with pytest.raises(AccessUnreadable, match=named) as told:
        access.credentials()
    seed = text.split("SEED-----\n")[1].split("\n", maxsplit=1)[0]
    assert seed not in str(told.value)


def test_a_jwt_of_nonsense_is_told_and_not_shown(tmp_path: Path, text: str) -> None:
    head, _, rest = text.partition(".")
    access = credentials_file(tmp_path, f"{head}.c2VjcmV0.{rest.partition('.')[2]}")
    with pytest.raises(AccessUnreadable, match="the JWT in it is none") as told:
        access.credentials()
    assert "secret" not in str(told.value)
    assert "c2VjcmV0" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AccessUnreadable, match=r"VELRO_NATS_CREDS_FILE, .*No such file"):
        NatsAccess(("nats://x",), creds_file=tmp_path / "nowhere").credentials()
    with pytest.raises(CertificatesUnreadable, match=r"VELRO_NATS_CA_FILE, .*No such file"):
        NatsAccess(("nats://x",), ca_file=tmp_path / "nowhere").tls()


def test_a_certificate_of_another_key_is_told(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    certificate, _ = issuer.issue("one")
    _, key = issuer.issue("other")
    access = NatsAccess(("tls://x",), ca_file=issuer.ca_file, cert_file=certificate, key_file=key)
    with pytest.raises(CertificatesUnreadable, match="VELRO_NATS_CERT_FILE and VELRO_"):
        access.tls()


@pytest.mark.parametrize(
    ("urls", "shown", "login"),
    [
        (["nats://h:4222"], "nats://h:4222", {}),
        (["h:4222"], "h:4222", {}),
        (["tls://u:p@ss@h:1"], "tls://h:1", {"user": "u", "password": "p@ss"}),
        (["nats://u:%70%2F%3A@h"], "nats://h", {"user": "u", "password": "p/:"}),
        (["nats://a-token@h"], "nats://h", {"token": "a-token"}),
        (["u:p@h:1"], "h:1", {"user": "u", "password": "p"}),
        (["nats://u:p@h", "nats://g"], "nats://h, nats://g", {"user": "u", "password": "p"}),
        (["nats://u:p@h", "nats://v:q@g"], "nats://h, nats://g", {}),
    ],
)
def test_addresses_are_shown_without_what_lets_in(
    urls: list[str], shown: str, login: dict[str, str]
) -> None:
    access = NatsAccess(tuple(urls))
    assert str(access) == shown
    assert access.login() == login
    assert access.has_password == any("@" in url for url in urls)


def test_half_a_certificate_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELRO_NATS_CERT_FILE", "/a.pem")
    with pytest.raises(BadSettings, match="VELRO_NATS_KEY_FILE go together"):
        loaded(LogSettings)


def test_files_are_not_set_where_they_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CREDS", "CA", "CERT", "KEY"):
        monkeypatch.setenv(f"VELRO_NATS_{name}_FILE", "")
    assert NatsAccess.of(loaded(LogSettings)) == NatsAccess(("nats://127.0.0.1:4222",))


def test_settings_say_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELRO_NATS_URL", "tls://one:1,tls://two:2")
    names = ("CREDS", "CA", "CERT", "KEY")
    for name in names:
        monkeypatch.setenv(f"VELRO_NATS_{name}_FILE", f"/{name}")
    files = [Path(f"/{name}") for name in names]
    assert NatsAccess.of(loaded(LogSettings)) == NatsAccess(("tls://one:1", "tls://two:2"), *files)
