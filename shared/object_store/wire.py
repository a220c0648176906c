"""The requests that every copy makes, without what botocore does for each.

Botocore takes more than a millisecond of Python for one request (endpoint rules, serialising,
events, parsing), and aiohttp a third of one. So objects are put and looked at over connections of
our own; all that is rare goes through botocore's clients.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

# What is read is the bucket's own answer, and expat has resolved no outside entity since 3.7.1.
from xml.etree import ElementTree as ET

from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.http11.pool import HttpPool, Origin
from shared.object_store.failures import reason_of, sentence_of
from shared.object_store.port import StoreFailed
from shared.object_store.signing import signed
from shared.tls import trusting

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    from shared.http11.pool import Body
    from shared.object_store.clients import S3Clients
    from shared.object_store.settings import S3Settings

NO_BODY_SHA256: Final = hashlib.sha256(b"").hexdigest()
# In place of the hash of a body that the service compares to another checksum.
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_CONNECT_WITHIN_S: Final = 5.0
_ERROR: Final = 300
# What is answered to these requests is empty, or a sentence in XML.
_ANSWER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said; the names of headers in lower case."""

    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.status < _ERROR

    def failure(self) -> StoreFailed:
        """What an answer that is no success means."""
        region = self.headers.get("x-amz-bucket-region")
        if self.status // 100 == 3 and region:  # noqa: PLR2004 - HTTP's redirects
            detail = f"{self.what}: the bucket is in {region}: set VELRO_S3_REGION to it"
            return StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail)
        parsed = self.parsed()
        return StoreFailed(reason_of(parsed), sentence_of(self.what, parsed))

    def parsed(self) -> dict[str, Any]:
        """An error, in the form that botocore gives it."""
        return {
            "Error": _error_in(self.body),
            "ResponseMetadata": {"HTTPStatusCode": self.status},
        }


class Wire:
    """Signed requests to one bucket. Made by `open_wire`, which owns its connections."""

    def __init__(self, pool: HttpPool, clients: S3Clients, settings: S3Settings) -> None:
        self._pool = pool
        self._clients = clients
        self._settings = settings
        self._base: tuple[Origin, str] | None = None

    async def send(
        self,
        what: str,
        method: str,
        key: str,
        *,
        headers: Mapping[str, str],
        query: str = "",
        body: Body | bytes | memoryview | None = None,
        sha256: str = NO_BODY_SHA256,
    ) -> Answer:
        """Send one request; once more where its keys were refused and there are others by then.

        Args:
            what: the operation's name, for sentences.
            method: of HTTP.
            key: of the object.
            headers: what is said of the object; signed.
            query: as it stands after the `?`.
            body: sent again from its beginning when need be.
            sha256: of the body, in hex: signed, and so compared where the service compares it.

        Raises:
            HttpFailed: there was no answer.
        """
        credentials = self._clients.credentials
        version = credentials.version
        answer = await self._sent(what, method, key, headers, query, body, sha256)
        if answer.ok or not credentials.from_files:
            return answer
        if reason_of(answer.parsed()) is not ReasonCode.CREDENTIALS_REFUSED:
            return answer
        await credentials.reread()
        if version == credentials.version:
            return answer
        return await self._sent(what, method, key, headers, query, body, sha256)

    async def _sent(  # noqa: PLR0917 - as `send`
        self,
        what: str,
        method: str,
        key: str,
        headers: Mapping[str, str],
        query: str,
        body: Body | bytes | memoryview | None,
        sha256: str,
    ) -> Answer:
        if self._base is None:
            self._base = await self._where()
        origin, base_path = self._base
        path = f"{base_path}/{quote(key, safe='/~')}"
        sent = signed(
            method,
            origin.authority,
            path,
            query,
            headers=headers,
            sha256=sha256,
            keys=await self._clients.credentials.pair(),
            region=self._settings.region,
            now=datetime.now(UTC),
        )
        sent["User-Agent"] = "velro"
        target = f"{path}?{query}" if query else path
        async with self._pool.exchange(method, origin, target, sent, body) as answer:
            said = await answer.read(at_most=_ANSWER_BYTES)
        return Answer(what, answer.status, answer.headers, said)

    async def _where(self) -> tuple[Origin, str]:
        """Where the bucket's keys begin, by botocore's own rules for endpoints and addressing."""
        presigned = await self._clients.plain.generate_presigned_url(
            "get_object", Params={"Bucket": self._settings.bucket, "Key": "key"}
        )
        url = URL(presigned, encoded=True)
        origin = Origin(url.scheme, url.raw_host or "", url.port or 0)
        return origin, url.raw_path.removesuffix("/key")


@asynccontextmanager
async def open_wire(clients: S3Clients, settings: S3Settings) -> AsyncGenerator[Wire]:
    """A wire to the bucket that the settings name; its connections are closed at the end."""
    async with wire_pool(settings) as pool:
        yield Wire(pool, clients, settings)


def wire_pool(settings: S3Settings) -> HttpPool:
    """The connections that a wire sends over.

    Raises:
        CertificatesUnreadable: the file of the service's issuers holds none.
    """
    tls: ssl.SSLContext | None = None
    if settings.ca_file is not None:
        tls = trusting("VELRO_S3_CA_FILE", settings.ca_file)
        tls.set_alpn_protocols(["http/1.1"])
    return HttpPool(
        max_connections=settings.max_connections,
        connect_within_s=min(_CONNECT_WITHIN_S, settings.timeout_s),
        silence_s=settings.timeout_s,
        tls=tls,
    )


def _error_in(body: bytes) -> dict[str, str]:
    """Code and message of an answer that is an error; nothing where it holds none."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - see the import
    except ET.ParseError:
        return {}
    said = {element.tag.rpartition("}")[2]: element.text or "" for element in root}
    return {name: said[name] for name in ("Code", "Message") if name in said}
