"""What commands print for a person: values as they are, whatever they hold, and none cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Collection


def printer(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text as it is; styles are said beside it.

    Prompts, names of users and reasons are other people's, and may hold brackets that rich would
    take for its own: `[/INST]` ended the command.
    """
    return Console(markup=False, stderr=stderr, quiet=quiet)


def table(*columns: str, whole: Collection[str] = (), header: bool = True) -> Table:
    """A table whose values are broken where they have no room, never cut off.

    Args:
        columns: their titles.
        whole: the columns that are not broken either, as ids, which a person copies.
        header: whether the titles are shown.
    """
    made = Table(box=box.SIMPLE_HEAD, show_header=header)
    for name in columns:
        made.add_column(name, overflow="fold", no_wrap=name in whole)
    return made
