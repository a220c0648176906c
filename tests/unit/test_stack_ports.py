"""Ports: the usual where free, others where not, and the same ones the next time."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from velro.stack import ports
from velro.stack.ports import GRPC_OFFSET, NoFreePort, choose, is_free, remembered

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextmanager
def taken(port: int) -> Generator[None]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield


@pytest.fixture
def memory(tmp_path: Path) -> Generator[Path]:
    memory = tmp_path / "below" / "ports.json"
    yield memory
    ports.release(memory)


@pytest.fixture
def two_free(tmp_path: Path) -> tuple[int, int]:
    finding = tmp_path / "free.json"
    found = choose({"one": None, "two": None}, finding)
    ports.release(finding)
    return found["one"], found["two"]


@pytest.fixture
def free(two_free: tuple[int, int]) -> int:
    return two_free[0]


def test_the_usual_port_is_taken_where_it_is_free(memory: Path, free: int) -> None:
    assert choose({"nats": free}, memory) == {"nats": free}


def test_another_is_chosen_where_the_usual_one_is_in_use(memory: Path, free: int) -> None:
    with taken(free):
        assert choose({"nats": free}, memory)["nats"] != free


def test_another_is_chosen_where_only_the_grpc_port_is_in_use(memory: Path, free: int) -> None:
    with taken(free + GRPC_OFFSET):
        assert not is_free(free)
        assert choose({"s3": free}, memory)["s3"] != free


def test_a_port_on_every_address_of_the_machine_counts_as_in_use(free: int) -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", free))  # noqa: S104 - what another program on the machine may do
        server.listen()
        assert not is_free(free)


def test_the_ports_of_the_last_time_are_chosen_again(memory: Path, free: int) -> None:
    with taken(free):
        first = choose({"nats": free, "s3": None}, memory)
    assert choose({"nats": free, "s3": None}, memory) == first == remembered(memory)


def test_a_remembered_port_in_use_by_now_is_replaced_and_the_others_stay(memory: Path) -> None:
    first = choose({"nats": None, "s3": None}, memory)
    with taken(first["s3"]):
        second = choose({"nats": None, "s3": None}, memory)
    assert second["nats"] == first["nats"]
    assert second["s3"] != first["s3"]


def test_a_name_that_is_new_gets_a_port_beside_the_remembered_ones(memory: Path) -> None:
    first = choose({"nats": None}, memory)
    assert choose({"nats": None, "s3": None}, memory)["nats"] == first["nats"]


def test_no_two_servers_get_ports_that_are_one_grpc_offset_apart(
    memory: Path, two_free: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free, another = two_free
    near = free - GRPC_OFFSET if free > 21_000 else free + GRPC_OFFSET

    def first_ones(_population: range, _count: int) -> list[int]:
        return [free, near, another]

    monkeypatch.setattr(ports.random, "sample", first_ones)
    assert set(choose({"filer": None, "s3": None}, memory).values()) == {free, another}


def test_where_nothing_is_free_it_says_so(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_port: int) -> bool:
        return False

    monkeypatch.setattr(ports, "is_free", never)
    with pytest.raises(NoFreePort, match=r"127\.0\.0\.1"):
        choose({"nats": 4222}, memory)


def test_a_usual_port_is_held_against_others_before_its_server_runs(
    memory: Path, free: int, tmp_path: Path
) -> None:
    assert choose({"nats": free}, memory) == {"nats": free}
    assert choose({"nats": free}, tmp_path / "other.json")["nats"] != free
    assert choose({"nats": free}, memory) == {"nats": free}, "the holder itself may ask again"
    ports.release(memory)
    third = tmp_path / "third.json"
    assert choose({"nats": free}, third)["nats"] == free
    ports.release(third)


def test_a_port_that_nobody_wished_for_is_held_too(
    memory: Path, free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def always(_population: range, _count: int) -> list[int]:
        return [free]

    monkeypatch.setattr(ports.random, "sample", always)
    assert choose({"nats": None}, memory) == {"nats": free}
    with pytest.raises(NoFreePort):
        choose({"nats": None}, tmp_path / "other.json")


def test_a_held_port_can_be_listened_on(memory: Path, free: int) -> None:
    choose({"nats": free}, memory)
    with taken(free):
        pass


def test_the_memory_is_plain_json(memory: Path) -> None:
    chosen = choose({"nats": None}, memory)
    assert json.loads(memory.read_text()) == chosen


def test_another_users_seaweedfs_socket_bars_a_port(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_SOCKETS", tmp_path)
    (tmp_path / f"seaweedfs-filer-grpc-{free + GRPC_OFFSET}.sock").touch()
    assert is_free(free), "one's own is taken away by the server"
    someone_else = (tmp_path / f"seaweedfs-filer-grpc-{free + GRPC_OFFSET}.sock").stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: someone_else)
    assert not is_free(free)
