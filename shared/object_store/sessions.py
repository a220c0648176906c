"""Plain HTTP requests to the service, for the few that neither botocore nor the wire makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from shared.tls import trusting

if TYPE_CHECKING:
    from shared.object_store.settings import S3Settings


def session(settings: S3Settings, *, outside: bool = False) -> aiohttp.ClientSession:
    """A session that trusts whom the settings trust, to be closed by who asked for it.

    Args:
        settings: the service's.
        outside: it is reached as readers outside see it, where the system's issuers may have
            signed its certificate.

    Raises:
        CertificatesUnreadable: the file of the service's issuers holds none.
    """
    if settings.ca_file is None:
        return aiohttp.ClientSession()
    tls = trusting("VELRO_S3_CA_FILE", settings.ca_file)
    if outside:
        tls.load_default_certs()
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))
