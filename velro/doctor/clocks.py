"""Whether a part's clock goes as ours does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from velro.doctor.findings import green, red, yellow

if TYPE_CHECKING:
    from datetime import datetime

    from velro.doctor.findings import Verdict

# Deadlines of links and leases are compared across parts; signed callbacks are refused from 300 s
# on, signed requests to a bucket from 900 s on.
_YELLOW_S: Final = 5.0
_RED_S: Final = 60.0


def judged_skew(theirs: datetime, before: datetime, after: datetime) -> Verdict:
    """How far a clock is from ours, which was read before and after it."""
    middle = before + (after - before) / 2
    unsure_s = (after - before).total_seconds() / 2
    return judged_skew_s((theirs - middle).total_seconds(), unsure_s=unsure_s)


def judged_skew_s(skew_s: float, *, unsure_s: float) -> Verdict:
    """The same, where the difference is known."""
    certain_s = max(0.0, abs(skew_s) - unsure_s)
    advice = "let both machines take their time from NTP (chrony, systemd-timesyncd)"
    if certain_s >= _RED_S:
        return red(f"{skew_s:+.1f} s from ours: leases and signatures fail", advice)
    if certain_s >= _YELLOW_S:
        return yellow(f"{skew_s:+.1f} s from ours: deadlines are off by as much", advice)
    return green(f"within {max(certain_s, unsure_s, 0.1):.1f} s of ours")
