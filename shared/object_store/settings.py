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
        max_connections: at once.
        timeout_s: for one request to be answered, without the body's own time.
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
    max_connections: PositiveInt = 128
    timeout_s: PositiveFloat = 30.0
