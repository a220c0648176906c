"""Where the bucket is, from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import HttpUrl, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class S3Settings(BaseSettings):
    """The team's own bucket, each setting as `VELRO_S3_<NAME>`.

    Attributes:
        endpoint_url: the service; None: AWS itself.
        public_endpoint_url: the same service as readers outside see it, for signed URLs.
        url_mode: how objects are read: by URLs signed for a while, or below a public base.
        public_base_url: what keys are appended to in public mode.
        signed_url_ttl_s: how long a signed URL works.
        verify: what is done after each put: `head` compares size and checksum as the service
            tells them, `full` also reads the object back and hashes it.
        path_style: the bucket in the path of its URLs; else in the name of the host.
        parts_at_once: of all large files of this process together.
        max_connections: at once.
        timeout_s: for one request to be answered, without the body's own time.
        min_bytes_per_s: how slowly a body may go to the service, or come from it.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_S3_", extra="ignore")

    endpoint_url: HttpUrl | None = None
    public_endpoint_url: HttpUrl | None = None
    region: str = "us-east-1"
    access_key: str
    secret_key: SecretStr
    bucket: str = "media"
    url_mode: Literal["signed", "public"] = "signed"
    public_base_url: HttpUrl | None = None
    signed_url_ttl_s: PositiveInt = 3600
    verify: Literal["head", "full"] = "head"
    path_style: bool = True
    parts_at_once: PositiveInt = 4
    max_connections: PositiveInt = 128
    timeout_s: PositiveFloat = 30.0
    min_bytes_per_s: PositiveFloat = 100_000.0
