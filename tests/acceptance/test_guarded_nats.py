"""All of Velro on somebody else's NATS, which speaks TLS and lets in by credentials alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.commands import Command, running, wait_until
from tests.guarded_nats import Configured, Issuer, Tenant, configured_nats, speaking_tls
from velro.stack.nats import answer_of, answers

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def tenant() -> Tenant:
    return Tenant.new()


@pytest.fixture(scope="module")
def nats(room: Path, tenant: Tenant) -> Generator[Configured]:
    with configured_nats(room, speaking_tls(Issuer(room)), tenant.config) as server:
        yield server


@pytest.fixture(scope="module")
def velro(room: Path, tenant: Tenant, nats: Configured) -> Generator[Command]:
    (room / "velro.creds").write_text(tenant.credentials())
    command = Command(room / "velro")
    command.environment |= {
        "VELRO_NATS_URL": f"tls://localhost:{nats.port}",
        "VELRO_NATS_CA_FILE": str(room / "ca.pem"),
        "VELRO_NATS_CREDS_FILE": str(room / "velro.creds"),
    }
    with running(command):
        yield command


def ended(velro: Command, *words: str) -> str:
    """What a command says that has to end well."""
    done = velro.run(*words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_a_generation_is_run_stored_replayed_and_verified(velro: Command) -> None:
    ended(velro, "generate", "a lighthouse behind a locked door")

    def stored() -> bool:
        return bool(json.loads(ended(velro, "verify", "--json"))["objects"]["ours"])

    wait_until(stored, deadline_s=60)
    ended(velro, "replay", "--all")
    assert json.loads(ended(velro, "tail", "--json").splitlines()[0])["position"] == 1
    assert "nats: access: over TLS, with a login" in ended(velro, "doctor")
    # What another shell is told leads there as well.
    assert f"export VELRO_NATS_CREDS_FILE={velro.directory.parent}" in ended(velro, "env")


def test_services_go_on_when_credentials_have_expired_and_new_ones_are_there(
    velro: Command, tenant: Tenant, nats: Configured
) -> None:
    file = velro.directory.parent / "velro.creds"
    file.write_text(Tenant.new().credentials())
    nats.server.stop()
    nats.server.start()
    (addresses,) = re.findall(r"VELRO_GENERATION_PORT=(\d+)", ended(velro, "env"))
    readiness = f"http://127.0.0.1:{addresses}/readyz"
    wait_until(lambda: "Authorization Violation" in answer_of(readiness), deadline_s=30)
    file.write_text(tenant.credentials())
    wait_until(lambda: answers(readiness), deadline_s=30)
    ended(velro, "generate", "another one")
