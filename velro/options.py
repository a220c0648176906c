"""What the commands of `velro` have in common: where they look, and how they are asked."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from velro import local

DIRECTORY = Path(os.environ.get("VELRO_DIRECTORY", ".velro"))

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def use_environment() -> None:
    """Take the addresses and credentials of `velro up`, where the environment has no others."""
    local.use_environment_of(DIRECTORY / "local")


def duration(text: str) -> timedelta:
    """Read 90m, 24h or 7d.

    Raises:
        typer.BadParameter: it is none of these.
    """
    units = {"m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal():
        raise typer.BadParameter(f"{text!r} is no duration: write 90m, 24h or 7d")
    return timedelta(**{units[unit]: int(number)})
