"""The command line on a Velro of its own, from up to down."""

from __future__ import annotations

import json
import shlex
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.acceptance.commands import Command, wait_until
from velro.stack import state

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture(scope="module")
def velro(tmp_path_factory: pytest.TempPathFactory) -> Generator[Command]:
    command = Command(tmp_path_factory.mktemp("velro"))
    up = command.run("up", "--detach", deadline_s=90)
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield command
    finally:
        down = command.run("down", deadline_s=90, environment=environment_of(command))
        assert down.returncode == 0, down.stdout + down.stderr
        assert state.living(command.directory / "local") == []


pytestmark = pytest.mark.timeout(120)


def test_generate_says_where_the_media_is(velro: Command) -> None:
    done = velro.run("generate", "a lighthouse in a storm", "--count", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    addresses = [word for word in done.stdout.split() if word.startswith("http://")]
    assert len(addresses) == 2
    for address in addresses:
        image = httpx.get(address, follow_redirects=True, trust_env=False)
        assert image.headers["content-type"] == "image/jpeg"


def test_stats_count_what_was_generated(velro: Command) -> None:
    assert velro.run("generate", "a fox in fresh snow").returncode == 0
    shown = json.loads(velro.run("stats", "--json").stdout)
    assert shown["generations"]["completed"] >= 1
    assert shown["generations"]["success_rate"] == 1.0
    assert shown["backlog"]["lost"] == 0
    assert "generations" in velro.run("stats", "--since", "7d").stdout


def environment_of(velro: Command) -> dict[str, str]:
    """What a shell knows after `eval "$(velro env)"`."""
    lines = velro.run("env").stdout.splitlines()
    assert lines
    pairs = [line.removeprefix("export ").partition("=") for line in lines]
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


@pytest.mark.parametrize("knowing", [False, True], ids=["plain shell", "shell with velro env"])
def test_status_knows_every_process(velro: Command, *, knowing: bool) -> None:
    environment = environment_of(velro) if knowing else {}
    status = velro.run("status", "--json", environment=environment)
    assert status.returncode == 0
    names = {row["name"] for row in json.loads(status.stdout) if row["running"]}
    assert names == {"nats", "postgres", "seaweedfs", "sandbox", "generation", "storage"}


def test_the_services_own_commands_find_what_was_started(velro: Command) -> None:
    untold = velro.run("backlog", program="storage-svc")
    assert untold.returncode == 2
    assert 'eval "$(velro env)"' in untold.stderr
    told = environment_of(velro)
    shown = velro.run("backlog", "--json", program="storage-svc", environment=told)
    assert shown.returncode == 0, shown.stdout + shown.stderr


@pytest.mark.parametrize("read_model", ["generation", "storage"])
def test_replay_rebuilds_beside_the_running_services(velro: Command, read_model: str) -> None:
    replayed = velro.run("replay", read_model)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "is rebuilt up to position" in replayed.stdout
    assert velro.run("generate", "after the replay").returncode == 0


def test_a_replay_is_planned_undone_and_kept_to_one_user(velro: Command) -> None:
    assert velro.run("generate", "a planned fox", "--user", "zoe").returncode == 0
    planned = json.loads(velro.run("replay", "--all", "--plan", "--json").stdout)
    assert [plan["read_model"] for plan in planned] == ["generation", "storage"]
    assert planned[0]["events"] >= 4
    assert planned[0]["tables"][0]["name"] == "generations"
    assert planned[0]["side_effects"] == []
    assert "no provider, bucket or log" in planned[0]["why_no_side_effects"]
    assert planned[0]["from_archive"] is False
    assert "side effects  none" in velro.run("replay", "storage", "--plan").stdout
    told = velro.run("replay", "storage", "--plan", "--from-archive").stdout
    assert "generations, from the archive" in told
    for arguments, said in (
        (("--all",), "with the same content"),
        (("generation", "--undo"), "generation is switched back"),
        (("generation", "--from-archive"), "replaying generation from its archive"),
        (("generation", "--only", "user=zoe"), "1 generations made anew"),
    ):
        done = velro.run("replay", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
    for wrong, why in (
        (("generation", "--only", "somebody"), "neither generation=ID nor user=ID"),
        (("generation", "--undo", "--from-archive"), "goes with a whole rebuild"),
    ):
        refused = velro.run("replay", *wrong)
        assert refused.returncode == 2
        assert why in refused.stderr


def test_a_request_that_is_refused_is_a_sentence_and_an_exit_code(velro: Command) -> None:
    refused = velro.run("generate", "x", "--provider", "nobody", "--model", "m/n")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "sandbox" in refused.stderr  # the providers that there are


def test_without_dead_letters_the_list_says_so(velro: Command) -> None:
    assert "No dead letters" in velro.run("dead-letters", "list").stdout
    assert json.loads(velro.run("dead-letters", "list", "--json").stdout) == []
    missing = velro.run("dead-letters", "show", "nobody")
    assert missing.returncode == 2
    assert "no dead letter is kept for nobody" in missing.stderr


def test_a_second_up_says_what_is_in_its_way(velro: Command) -> None:
    second = velro.run("up", "--detach")
    assert second.returncode == 2
    assert "running already" in second.stderr


def test_up_stays_until_it_is_told_to_end(tmp_path: Path) -> None:
    output = tmp_path / "output"
    up = Command(tmp_path).start("up", output=output)
    wait_until(lambda: "Ctrl-C" in output.read_text(), deadline_s=60)
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0, output.read_text()
    assert state.living(tmp_path / "local") == []


def test_every_command_is_in_the_help_and_a_slip_is_told(tmp_path: Path) -> None:
    command = Command(tmp_path)
    shown = command.run("--help")
    assert shown.returncode == 0, shown.stderr
    # Each is imported for what it says of itself.
    for name in ("demo", "generate", "verify", "replay", "parked", "dead-letters", "archive"):
        assert f"│ {name} " in shown.stdout
    slip = command.run("shw", "g")
    assert slip.returncode == 2
    assert "Did you mean 'show'" in slip.stderr
    one = command.run("parked", "--help").stdout
    assert all(f"│ {name} " in one for name in ("list", "show", "retry", "discard"))


def test_where_nothing_runs_every_command_says_what_to_do(tmp_path: Path) -> None:
    for words in (["generate", "x"], ["stats"], ["replay", "storage"], ["dead-letters", "list"]):
        told = Command(tmp_path).run(*words)
        assert told.returncode == 2
        assert "velro up" in told.stderr


def test_a_server_of_ones_own_is_used_and_none_is_started(tmp_path: Path, nats_url: str) -> None:
    velro = Command(tmp_path)
    velro.environment |= {
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": "OWN",
        "VELRO_SUBJECT_ROOT": "own",
    }
    try:
        assert velro.run("up", "--detach", deadline_s=90).returncode == 0
        rows = json.loads(velro.run("status", "--json").stdout)
        assert "nats" not in {row["name"] for row in rows}
        assert velro.run("generate", "on a server of one's own").returncode == 0
    finally:
        velro.run("down", deadline_s=90)
