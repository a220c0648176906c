"""What a benchmark comes to, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with what it is to be compared to, in the same unit.

    Attributes:
        beside: the limits and peers, by what they are.
    """

    name: str
    unit: str
    value: float
    beside: dict[str, float]


def middle(values: Sequence[float]) -> float:
    """The median, in as many digits as mean something."""
    value = median(values)
    return round(value) if value >= 100 else round(value, 2)


def machine() -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = models[0] if models else platform.machine()
    return f"{cores} cores, {model}, {platform.system()}, Python {platform.python_version()}"


def keep(figures: Sequence[Figure], *, command: str) -> None:
    """Write the figures over those of the same names, and leave the others."""
    kept: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    by_name = {figure["name"]: figure for figure in kept}
    for figure in figures:
        by_name[figure.name] = {**asdict(figure), "machine": machine(), "command": command}
    RESULTS.write_text(
        json.dumps(sorted(by_name.values(), key=lambda f: f["name"]), indent=2) + "\n"
    )
