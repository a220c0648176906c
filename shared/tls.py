"""Who is trusted to say whose certificate is whose, where that is not the system's to say."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from shared.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path


class CertificatesUnreadable(Refused):
    """A file holds no certificate, or not its key. The message names the variable and the file."""


def trusting(variable: str, ca_file: Path | None) -> ssl.SSLContext:
    """A client's side of TLS that trusts these issuers alone; None is those of the system.

    Raises:
        CertificatesUnreadable: the file that the variable names holds none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        said = error.strerror or error
        raise CertificatesUnreadable(f"{variable}, {ca_file}: {said}") from error


def shows_certificate(
    context: ssl.SSLContext, variables: str, cert_file: Path, key_file: Path | None
) -> None:
    """Let a context show a certificate of ours to who asks for one.

    Raises:
        CertificatesUnreadable: the files that the variables name hold none, or not its key.
    """
    try:
        context.load_cert_chain(cert_file, key_file)
    except OSError as error:
        said = error.strerror or error
        raise CertificatesUnreadable(f"{variables}, {cert_file} and {key_file}: {said}") from error
