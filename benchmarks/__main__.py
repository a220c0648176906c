"""`python -m benchmarks [NAME]`: measure one or all, print a table, keep the figures.

A benchmark is a file here with `async def measure(room: Path) -> list[Figure]`: it starts the
servers it needs under `room`, and ends them. Its name goes into `NAMES`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.figures import keep

if TYPE_CHECKING:
    from benchmarks.figures import Figure

NAMES = (
    "append",
    "append_batch",
    "import_rows",
    "replay_million",
    "replay_archive",
    "completion",
    "lease",
    "migrate",
    "live_lag",
    "verify",
    "verify_million",
    "recovery",
)


class Benchmark(Protocol):
    """A file of this folder that measures something."""

    async def measure(self, room: Path) -> list[Figure]:
        """Measure, with servers and data under `room`."""
        ...


def main(arguments: list[str]) -> int:
    """Run what was asked for, or everything; 2 when there is no benchmark of that name."""
    names = [name for name in arguments if name] or list(NAMES)
    console = Console()
    if unknown := [name for name in names if name not in NAMES]:
        console.print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for name in names:
        benchmark = cast("Benchmark", import_module(f"benchmarks.{name}"))
        with console.status(f"measuring {name}"), tempfile.TemporaryDirectory() as room:
            figures = uvloop.run(benchmark.measure(Path(room)))
        keep(figures, command=f"make bench NAME={name}")
        console.print(_table(name, figures))
    return 0


def _table(name: str, figures: list[Figure]) -> Table:
    table = Table("figure", "Velro", "beside", "", "Velro is", title=name, title_justify="left")
    for figure in figures:
        shown = [figure.name, f"{figure.value:,g} {figure.unit}"]
        for what, value in figure.beside.items():
            ratio = figure.value / value if value else 0
            table.add_row(*shown, what, f"{value:,g} {figure.unit}", f"{ratio:.2f} x")
            shown = ["", ""]
        if not figure.beside:
            table.add_row(*shown)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
