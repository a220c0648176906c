"""The command `velro`: a Velro of one's own, and what an operator does with any.

Each command is imported when it is asked for: all of them take 0.75 s, `velro generate` 0.15.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Final

import typer

from shared.errors import VelroError
from shared.program import configure_logging, ended_by, telling_of_full_disks

# Module and attribute, a function or an app of several; in the order of the help.
_WHERE: Final = {
    "demo": "velro.demo.story:demo",
    "up": "velro.operating:up",
    "down": "velro.operating:down",
    "status": "velro.operating:status",
    "env": "velro.operating:env",
    "generate": "velro.generating:generate",
    "show": "velro.showing:show",
    "diff": "velro.showing:diff",
    "stats": "velro.statistics:stats",
    "doctor": "velro.doctor.command:doctor",
    "verify": "velro.verify.command:verify_command",
    "replay": "velro.replaying_command:replay",
    "parked": "velro.parked:app",
    "dead-letters": "velro.dead_letters:app",
    "export": "velro.tailing:export",
    "tail": "velro.tailing:tail",
    "archive": "velro.archiving:app",
    "restore": "velro.restoring:restore_command",
}


def _app(asked: list[str]) -> typer.Typer:
    """With the command that is asked for first; with all where it is none of them, as for help."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    # With one command alone Typer would take its name for an argument.
    app.callback()(_velro)
    for name in asked[:1] if asked and asked[0] in _WHERE else _WHERE:
        module, _, attribute = _WHERE[name].partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _velro() -> None:
    """A Velro of one's own, and what an operator does with any."""


def main() -> None:
    """Run the command line; an error of ours is a sentence and an exit code."""
    configure_logging(logging.WARNING)  # a person reads along
    try:
        with telling_of_full_disks():
            _app(sys.argv[1:])()
    except VelroError as error:
        raise SystemExit(ended_by(error).exit_code) from error
