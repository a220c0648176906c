"""The command `velro`: a Velro of one's own, and what an operator does with any."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from shared.errors import VelroError
from shared.program import configure_logging, ended_by, run
from velro import (
    archiving,
    dead_letters,
    generating,
    operating,
    parked,
    replaying_command,
    restoring,
    showing,
    statistics,
    tailing,
)
from velro.demo.story import play
from velro.doctor.command import doctor
from velro.options import DIRECTORY, AsJson, duration, use_environment
from velro.verify.command import verify_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
letters = typer.Typer(no_args_is_help=True, help="Work that was given up: see it, send it again.")
app.add_typer(letters, name="dead-letters")
app.command("replay")(replaying_command.replay)
app.add_typer(parked.app, name="parked")
app.command()(doctor)


@app.command()
def demo() -> None:
    """Play the main job on real servers: an outage, a kill, and nothing lost."""
    raise typer.Exit(play(DIRECTORY / "demo"))


@app.command()
def up(
    *,
    detach: Annotated[bool, typer.Option(help="Return, and leave everything running.")] = False,
) -> None:
    """Start the servers and both services, and stay until Ctrl-C or `velro down`."""
    operating.up(DIRECTORY / "local", detach=detach)


@app.command()
def down() -> None:
    """Stop everything that `velro up` started. The data stays."""
    operating.down(DIRECTORY / "local")


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show what runs, where, and how it does; ends with 1 where something does not."""
    raise typer.Exit(operating.status(DIRECTORY / "local", as_json=as_json))


@app.command()
def env() -> None:
    """Print what the services' own commands need here: `eval "$(velro env)"` in a shell."""
    operating.env(DIRECTORY / "local")


@app.command()
def generate(
    prompt: str,
    *,
    provider: Annotated[str, typer.Option(help="sandbox, or fal with FAL_KEY set.")] = "sandbox",
    model: Annotated[str | None, typer.Option(help="The provider's name of the model.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many generations.")] = 1,
    user: Annotated[str, typer.Option(help="Whose they are.")] = "me",
) -> None:
    """Request generations, watch them, and say where the media is."""
    use_environment()
    raise typer.Exit(
        run(generating.generate(prompt, provider=provider, model=model, count=count, user_id=user))
    )


@app.command()
def stats(
    *,
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Show success, storage failures, and the backlog by the time its links still live."""
    use_environment()
    run(statistics.show(duration(since), as_json=as_json))


app.command("verify")(verify_command)
app.command("restore")(restoring.restore_command)
app.command()(showing.show)
app.command()(showing.diff)
app.command()(tailing.export)
app.command()(tailing.tail)
app.add_typer(archiving.app, name="archive")


@letters.command("list")
def letters_list(*, as_json: AsJson = False) -> None:
    """Show every dead letter."""
    use_environment()
    run(dead_letters.list_all(as_json=as_json))


@letters.command("show")
def letters_show(generation_id: str) -> None:
    """Show one dead letter whole."""
    use_environment()
    run(dead_letters.show(generation_id))


@letters.command("retry")
def letters_retry(generation_ids: list[str]) -> None:
    """Send the work of these generations again."""
    use_environment()
    run(dead_letters.retry(generation_ids))


def main() -> None:
    """Run the command line; an error of ours is a sentence and an exit code."""
    configure_logging(logging.WARNING)  # a person reads along
    try:
        app()
    except VelroError as error:
        raise SystemExit(ended_by(error).exit_code) from error
