"""Where servers are, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Address:
    """All that a client of an S3 service needs."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers of a stack are, on loopback."""

    nats_url: str
    nats_monitor_url: str
    generation_dsn: str
    storage_dsn: str
    superuser_dsn: str
    s3: S3Address
