"""What the command line prints: tables for a person, JSON for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from storage_svc.application.store_output import (
    AlreadySettled,
    AwaitsLink,
    FailedNow,
    LostNow,
    Outcome,
    StoredNow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from storage_svc.application.backlog import OutputRef
    from storage_svc.application.judge_quarantined import Released
    from storage_svc.application.migrate import BatchSummary
    from storage_svc.application.reporting import (
        BacklogSummary,
        QuarantinedOutput,
        WaitingOutput,
    )


def print_json(console: Console, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """One line of JSON, dates in ISO 8601."""
    console.out(json.dumps(value, default=_plain), highlight=False)


def summary_as_data(batch: BatchSummary, left: BacklogSummary) -> dict[str, Any]:
    """A batch and what it left, as `--json` shows them."""
    data = {"batch": asdict(batch), "backlog": asdict(left)}
    for trouble in data["batch"]["lost_named"]:
        trouble["ref"] = trouble["ref"]._asdict()
    return data


def print_summary(console: Console, batch: BatchSummary, left: BacklogSummary) -> None:
    """What a batch did and what it left."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(Text(str(batch.stored), "bold green"), f"stored, {decimal(batch.stored_bytes)}")
    if batch.already:
        table.add_row(str(batch.already), "settled by somebody else meanwhile")
    for reason, count in sorted(batch.failed.items()):
        table.add_row(Text(str(count), "yellow"), f"failed and will be tried again: {reason}")
    if batch.awaiting_link:
        table.add_row(Text(str(batch.awaiting_link), "yellow"), "dead links: new ones asked for")
    if batch.undecided:
        table.add_row(Text(str(batch.undecided), "yellow"), "come again: the log did not answer")
    if batch.lost:
        table.add_row(Text(str(batch.lost), "bold red"), "lost")
    table.add_row(str(left.pending), _left(left))
    console.print(table)
    if batch.bucket_was_away:
        console.print("The bucket keeps failing, so the rest was not tried.", style="yellow")
    for trouble in batch.lost_named:
        console.print(
            Text.assemble(
                ("lost ", "red"),
                f"{trouble.ref.generation_id} output {trouble.ref.output_index}: ",
                f"{trouble.reason}, {trouble.detail}",
            )
        )


def backlog_as_data(summary: BacklogSummary, outputs: Sequence[WaitingOutput]) -> dict[str, Any]:
    """The backlog as `--json` shows it."""
    return {
        "backlog": asdict(summary),
        "outputs": [asdict(output) | {"ref": output.ref._asdict()} for output in outputs],
    }


def print_backlog(
    console: Console, summary: BacklogSummary, outputs: Sequence[WaitingOutput], *, lost: bool
) -> None:
    """The backlog in a sentence, then each output."""
    console.print(
        Text.assemble(
            (f"{summary.pending}", "bold"),
            " pending (",
            (f"{summary.at_risk}", "red"),
            f" at risk, {summary.overdue} past their death, {summary.running} being copied), ",
            (f"{summary.awaiting_link}", "yellow"),
            " waiting for a new link, ",
            (f"{summary.stored}", "green"),
            f" stored ({decimal(summary.stored_bytes)}), ",
            (f"{summary.lost}", "red"),
            f" lost{_of_these(summary)}; a slow copy takes {summary.p95_copy_s:.1f} s",
        )
    )
    if summary.reasons:
        console.print(
            ", ".join(f"{reason}: {count}" for reason, count in summary.reasons.items()),
            style="dim",
        )
    if outputs:
        at = "given up" if lost else "next attempt"
        print_outputs(console, outputs, now=datetime.now(UTC), at=at)


def print_outputs(
    console: Console, outputs: Iterable[WaitingOutput], *, now: datetime, at: str
) -> None:
    """Two lines an output, and its last failure in a third: an id is to be copied, whole."""
    for output in outputs:
        when = "being copied" if output.running else f"{at} {_distance(output.at, now)}"
        tried = f"{output.attempts} failed" if output.attempts else "not tried yet"
        _print_named(console, output.ref, output.dies_at, now)
        console.print(
            f"  of {output.user_id}, from {output.source_host}: {tried}, {when}", soft_wrap=True
        )
        if why := _why(output):
            console.print(f"  {why}", style="yellow", soft_wrap=True)


def quarantine_as_data(outputs: Sequence[QuarantinedOutput]) -> dict[str, Any]:
    """The quarantine as `--json` shows it."""
    return {"quarantined": [asdict(output) | {"ref": output.ref._asdict()} for output in outputs]}


def print_quarantine(
    console: Console, outputs: Sequence[QuarantinedOutput], *, now: datetime
) -> None:
    """Each output that a person should look at, the soonest death first."""
    if not outputs:
        console.print("Nothing is in quarantine.")
        return
    for output in outputs:
        _print_named(console, output.ref, output.dies_at, now)
        console.print(
            f"  of {output.user_id}, from {output.source_host}, looks like "
            f"{output.looks_like or 'nothing known'}",
            soft_wrap=True,
        )
        console.print(f"  {output.detail}", style="yellow", soft_wrap=True)
    console.print(
        "`storage-svc quarantine release GENERATION` stores one as bytes of no type; "
        "`reject GENERATION --why …` refuses it for good.",
        style="dim",
    )


def print_outcomes(
    console: Console, generation_id: str, outcomes: Sequence[tuple[OutputRef, Outcome]]
) -> None:
    """What came of the outputs of a generation that a person asked for."""
    if not outcomes:
        console.print(f"{generation_id}: every output is stored already")
    for ref, outcome in outcomes:
        console.print(f"{ref.generation_id} output {ref.output_index}: {_said(outcome)}")


def print_released(console: Console, released: Iterable[Released]) -> None:
    """What came of outputs that a person released from quarantine."""
    for each in released:
        name = f"{each.ref.generation_id} output {each.ref.output_index}"
        died = f"its link died at {each.died_at:%Y-%m-%d %H:%M:%S} UTC" if each.died_at else ""
        match each.outcome:
            case StoredNow(size_bytes=size_bytes):
                said = f"released and stored as bytes of no type, {decimal(size_bytes)}"
            case LostNow(reason=reason, detail=detail):
                because = (
                    f"{died}, and the bytes are gone" if died else "the bytes are not to be had"
                )
                said = f"released too late: {because} ({reason}, {detail})"
            case outcome:
                said = f"released; {_said(outcome)}{f'; {died}' if died else ''}"
        console.print(f"{name}: {said}", soft_wrap=True)


def _print_named(console: Console, ref: OutputRef, dies_at: datetime, now: datetime) -> None:
    dies = "dies" if dies_at > now else "died"
    console.print(
        Text.assemble(
            (f"{ref.generation_id} output {ref.output_index}", "bold"),
            f"  its link {dies} {_distance(dies_at, now)}",
        ),
        soft_wrap=True,
    )


def _said(outcome: Outcome) -> str:
    match outcome:
        case StoredNow(size_bytes=size_bytes, took_s=took_s):
            return f"stored, {decimal(size_bytes)} in {took_s:.1f} s"
        case AlreadySettled():
            return outcome.how
        case FailedNow(reason=reason, detail=detail):
            return f"failed and will be tried again: {reason}, {detail}"
        case AwaitsLink(reason=reason, detail=detail, answer_by=answer_by):
            until = f"{answer_by:%Y-%m-%d %H:%M:%S} UTC"
            return f"its link is dead ({reason}, {detail}); a new one is waited for until {until}"
        case LostNow(reason=reason, detail=detail):
            return f"lost: {reason}, {detail}"


def _of_these(summary: BacklogSummary) -> str:
    return f" ({summary.quarantined} in quarantine)" if summary.quarantined else ""


def _why(output: WaitingOutput) -> str:
    awaits = "; awaits a new link" if output.state == "awaiting_link" else ""
    detail = f": {output.detail}" if output.detail else ""
    return f"{output.reason or ''}{detail}{awaits}"


def _left(left: BacklogSummary) -> str:
    if not left.pending:
        return "left"
    now = datetime.now(UTC)
    death = (
        f", the next link dies {_distance(left.soonest_death, now)}" if left.soonest_death else ""
    )
    risk = f", {left.at_risk} at risk" if left.at_risk else ""
    return f"left{risk}{death}"


def _distance(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    amount, unit = abs(seconds), "s"
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if amount >= 2 * size:
            amount, unit = amount / size, name
            break
    return f"in {amount:.0f} {unit}" if seconds > 0 else f"{amount:.0f} {unit} ago"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
