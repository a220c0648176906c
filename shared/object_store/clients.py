"""The S3 clients: the one place where aioboto3's objects, made at run time, get a type."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import handlers

from shared.contracts.reasons import ReasonCode
from shared.object_store.credentials import S3Credentials
from shared.object_store.failures import reason_of
from shared.tls import trusting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiobotocore.credentials import AioCredentials
    from types_aiobotocore_s3 import S3Client

    from shared.object_store.settings import S3Settings

_SIGNED_WITH: Final = "velro_keys_version"


@dataclass(frozen=True, slots=True)
class S3Clients:
    """Three clients of one service.

    Attributes:
        plain: signs requests and not their bodies: for a service that compares a checksum to
            the body, which is a header and so part of what is signed.
        signing: signs bodies too, which hashes them once more.
        signer: makes signed URLs, for the service as readers outside see it.
        credentials: what all three sign with.
    """

    plain: S3Client
    signing: S3Client
    signer: S3Client
    credentials: S3Credentials


@contextlib.asynccontextmanager
async def s3_clients(settings: S3Settings) -> AsyncGenerator[S3Clients]:
    """Clients of the service that the settings name; their connections are closed at the end.

    Raises:
        KeysUnreadable: the settings name files of keys, which hold none.
        CertificatesUnreadable: the file of the service's issuers holds none.
    """
    credentials = await S3Credentials.of(settings)
    botocore_session: Any = AioSession()
    botocore_session.register_component("credential_provider", _Given(credentials.for_clients))
    session: Any = aioboto3.Session(botocore_session=botocore_session, region_name=settings.region)
    endpoint = str(settings.endpoint_url) if settings.endpoint_url else None
    public = str(settings.public_endpoint_url) if settings.public_endpoint_url else endpoint
    if settings.ca_file is not None:
        # Seen first, for what botocore says of a file that holds none comes with every request.
        trusting("VELRO_S3_CA_FILE", settings.ca_file)
    new = partial(session.client, "s3", verify=settings.ca_file and str(settings.ca_file))
    async with (
        new(endpoint_url=endpoint, config=_config(settings)) as plain,
        new(endpoint_url=endpoint, config=_config(settings, sign_bodies=True)) as signing,
        new(endpoint_url=public, config=_config(settings)) as signer,
    ):
        for client in (plain, signing):
            # Botocore asks to be told to continue before it sends a file, and aiohttp waits for
            # that without end; some services never say it.
            client.meta.events.unregister("before-call.s3", handlers.add_expect_header)
            if credentials.from_files:
                _try_again_with_other_keys(client, credentials)
        yield S3Clients(
            cast("S3Client", plain),
            cast("S3Client", signing),
            cast("S3Client", signer),
            credentials,
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """What a session asks for credentials."""

    credentials: AioCredentials

    async def load_credentials(self) -> AioCredentials:
        return self.credentials


def _try_again_with_other_keys(
    client: Any,  # noqa: ANN401 - made at run time, see above
    credentials: S3Credentials,
) -> None:
    """A request whose keys are refused is sent once more, where there are others by then."""

    def signed(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        request.context[_SIGNED_WITH] = credentials.version

    async def refused(
        response: tuple[object, dict[str, Any]] | None,
        attempts: int,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """Seconds to wait before it is sent again; None: it is not."""
        if response is None or "Error" not in response[1] or attempts > 1:
            return None
        if reason_of(response[1]) is not ReasonCode.CREDENTIALS_REFUSED:
            return None
        await credentials.reread()
        changed = request_dict["context"].get(_SIGNED_WITH) != credentials.version
        return 0.0 if changed else None

    client.meta.events.register("before-sign.s3", signed)
    client.meta.events.register("needs-retry.s3", refused)


def _config(settings: S3Settings, *, sign_bodies: bool = False) -> AioConfig:
    return AioConfig(
        connect_timeout=min(5.0, settings.timeout_s),
        read_timeout=settings.timeout_s,
        max_pool_connections=settings.max_connections,
        # Retrying is the caller's, who has a policy for it.
        retries={"total_max_attempts": 1},
        s3={
            "addressing_style": "path" if settings.path_style else "virtual",
            "payload_signing_enabled": sign_bodies,
        },
        signature_version="s3v4",
        # By default botocore appends a checksum to the body, which some services store with it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
