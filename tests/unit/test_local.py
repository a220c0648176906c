"""Which servers are this directory's own, whatever the variables of the shell say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from velro.local import Local, NoPort
from velro.stack import ports, state

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

EVERY = ["nats", "seaweedfs", "postgres"]


@pytest.fixture
def told(tmp_path: Path) -> Generator[Mapping[str, str]]:
    """What `velro env` says where all three servers were started once."""
    environment = Local(tmp_path, owned=False, given={}).environment
    for server in EVERY:
        (tmp_path / f"{server}.log").touch()
    ports.release(tmp_path / "ports.json")
    yield environment
    ports.release(tmp_path / "ports.json")


def servers(directory: Path, given: Mapping[str, str]) -> list[str]:
    local = Local(directory, owned=False, given=given)
    return [server.name for server in local.stack.servers]


def runs(directory: Path, server: str) -> None:
    """Put it on record as alive: this very process stands for it."""
    identity = state.Identity.of(os.getpid())
    assert identity is not None
    state.write(directory, state.Record(server, identity, None, 15, 1.0))


def test_servers_that_run_are_ours_though_variables_name_them(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    for server in EVERY:
        runs(tmp_path, server)
    assert servers(tmp_path, told) == EVERY


def test_stopped_servers_are_started_again_though_variables_name_them(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    local = Local(tmp_path, owned=False, given=told)
    assert [server.name for server in local.stack.servers] == EVERY
    assert local.environment == told


def test_a_server_at_another_address_is_somebody_elses(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    runs(tmp_path, "nats")
    given = {**told, "VELRO_NATS_URL": "nats://127.0.0.1:1,nats://127.0.0.1:2"}
    local = Local(tmp_path, owned=False, given=given)
    assert [server.name for server in local.stack.servers] == ["seaweedfs", "postgres"]
    assert local.others == {"nats": "127.0.0.1:1, 127.0.0.1:2"}
    assert local.environment["VELRO_NATS_URL"] == given["VELRO_NATS_URL"]
    assert "VELRO_NATS_MONITOR_URL" not in local.environment


ENTRY = {
    "VELRO_NATS_CREDS_FILE": "/elsewhere/velro.creds",
    "VELRO_NATS_CA_FILE": "/elsewhere/ca.pem",
    "VELRO_S3_ACCESS_KEY_FILE": "/elsewhere/access",
    "VELRO_S3_SECRET_KEY_FILE": "/elsewhere/secret",
}


def test_what_lets_in_elsewhere_is_not_in_the_way_here(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    stale = {"VELRO_S3_ACCESS_KEY": "another", "VELRO_S3_SECRET_KEY": "another"}
    assert Local(tmp_path, owned=False, given=ENTRY | stale).environment == told


def test_somebody_elses_servers_are_entered_with_what_is_given_alone(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    places = {"VELRO_NATS_URL": "tls://nats:1", "VELRO_S3_ENDPOINT_URL": "https://s3"}
    environment = Local(tmp_path, owned=False, given=ENTRY | places).environment
    wanted = ENTRY | places | {"VELRO_S3_ACCESS_KEY": "", "VELRO_NATS_KEY_FILE": ""}
    assert environment | wanted == environment
    assert told["VELRO_S3_SECRET_KEY"] not in environment.values()


def test_an_address_that_was_never_ours_is_somebody_elses(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    (tmp_path / "nats.log").unlink()
    assert servers(tmp_path, told) == ["seaweedfs", "postgres"]


def test_what_another_velro_was_told_leads_nowhere_else(tmp_path: Path) -> None:
    other = Local(tmp_path / "other", owned=False, given={})
    here = Local(tmp_path / "here", owned=False, given=other.environment)
    try:
        for name in ("VELRO_GENERATION_PORT", "VELRO_STORAGE_PORT"):
            # It is taken: the other one holds it.
            assert here.environment[name] != other.environment[name]
        assert here.environment["VELRO_SANDBOX_URL"] == here.sandbox_url != other.sandbox_url
        hosts = here.environment["VELRO_MEDIA_HTTP_HOSTS"].split(",")
        assert hosts == [url.partition("//")[2] for url in (here.sandbox_url, other.sandbox_url)]
    finally:
        for directory in ("other", "here"):
            ports.release(tmp_path / directory / "ports.json")


def test_a_service_listens_where_a_variable_wishes_it_to(tmp_path: Path) -> None:
    memory = tmp_path / "free.json"
    free = ports.choose({"any": None}, memory)["any"]
    ports.release(memory)
    Local(tmp_path, owned=False, given={})
    local = Local(tmp_path, owned=False, given={"VELRO_GENERATION_PORT": f"{free}"})
    assert local.environment["VELRO_GENERATION_PORT"] == f"{free}"
    assert local.api_url.endswith(f":{free}")
    ports.release(tmp_path / "ports.json")


@pytest.mark.parametrize("text", ["ninety", "-1", "65536", "80.5"])
def test_a_port_that_is_none_is_told_with_its_variable(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoPort, match=f"VELRO_STORAGE_PORT is '{text}'"):
        Local(tmp_path, owned=False, given={"VELRO_STORAGE_PORT": text})


def test_what_runs_is_found_whatever_a_variable_wishes(
    tmp_path: Path, told: Mapping[str, str]
) -> None:
    runs(tmp_path, "nats")
    local = Local(tmp_path, owned=False, given={"VELRO_GENERATION_PORT": "ninety"})
    assert local.api_url.endswith(f":{told['VELRO_GENERATION_PORT']}")
