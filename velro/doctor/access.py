"""Who gets at the log's server, and how."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from velro.doctor.findings import green, yellow

if TYPE_CHECKING:
    from velro.doctor.findings import Verdict

# For a person to bring new credentials.
_SOON: Final = timedelta(days=7)


def judged_access(
    *,
    open_to_all: bool,
    encrypted: bool,
    with_password: bool,
    expires_at: datetime | None,
    here: bool,
) -> Verdict:
    """What it takes to get at the log; `here`: from this machine alone."""
    told = "over TLS" if encrypted else "not encrypted"
    if expires_at is not None and expires_at - datetime.now(UTC) < _SOON:
        return yellow(
            f"{told}; the credentials expire at {expires_at:%Y-%m-%d %H:%M} UTC",
            "write new ones to the file that VELRO_NATS_CREDS_FILE names: they are read with the "
            "next connection, nothing has to be restarted",
        )
    if open_to_all and not here:
        return yellow(
            f"{told}; whoever reaches the server may write to the log",
            "keep it on a network of Velro's own, or let it ask for credentials",
        )
    if with_password and not encrypted and not here:
        return yellow(
            "not encrypted: the password can be read on its way",
            "let the server speak TLS, and say tls:// in VELRO_NATS_URL",
        )
    until = f", until {expires_at:%Y-%m-%d}" if expires_at is not None else ""
    return green(f"{told}, {'everybody is let in' if open_to_all else 'with a login'}{until}")
