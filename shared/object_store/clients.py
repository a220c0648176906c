"""The S3 clients: the one place where aioboto3's objects, made at run time, get a type."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aioboto3
from aiobotocore.config import AioConfig
from botocore import handlers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from types_aiobotocore_s3 import S3Client

    from shared.object_store.settings import S3Settings


@dataclass(frozen=True, slots=True)
class S3Clients:
    """Three clients of one service.

    Attributes:
        plain: signs requests and not their bodies: for a service that compares a checksum to
            the body, which is a header and so part of what is signed.
        signing: signs bodies too, which hashes them once more.
        signer: makes signed URLs, for the service as readers outside see it.
    """

    plain: S3Client
    signing: S3Client
    signer: S3Client


@contextlib.asynccontextmanager
async def s3_clients(settings: S3Settings) -> AsyncGenerator[S3Clients]:
    """Clients of the service that the settings name; their connections are closed at the end."""
    session: Any = aioboto3.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        region_name=settings.region,
    )
    endpoint = str(settings.endpoint_url) if settings.endpoint_url else None
    public = str(settings.public_endpoint_url) if settings.public_endpoint_url else endpoint
    async with (
        session.client("s3", endpoint_url=endpoint, config=_config(settings)) as plain,
        session.client(
            "s3", endpoint_url=endpoint, config=_config(settings, sign_bodies=True)
        ) as signing,
        session.client("s3", endpoint_url=public, config=_config(settings)) as signer,
    ):
        for client in (plain, signing):
            # Botocore asks to be told to continue before it sends a file, and aiohttp waits for
            # that without end; some services never say it.
            client.meta.events.unregister("before-call.s3", handlers.add_expect_header)
        yield S3Clients(
            cast("S3Client", plain), cast("S3Client", signing), cast("S3Client", signer)
        )


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
