"""The bucket: it lets us in, keeps what it is given, and what it cannot do."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from shared.contracts.reasons import ReasonCode
from shared.object_store.port import StoreFailed
from shared.object_store.probe import probe_bucket
from velro.doctor.clocks import judged_skew_s
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.object_store.capabilities import BucketCapabilities
    from shared.object_store.settings import S3Settings

_TIMEOUT_S: Final = 5.0
# HTTP tells the time in whole seconds.
_UNSURE_S: Final = 1.0
_ADVICE: Final = {
    ReasonCode.CREDENTIALS_REFUSED: (
        "its keys expired or were changed: set VELRO_S3_ACCESS_KEY and VELRO_S3_SECRET_KEY (or the "
        "files that hold them) anew. Outputs wait meanwhile, and are copied when it lets us in"
    ),
    ReasonCode.BUCKET_FULL: "give it more room; outputs wait meanwhile",
    ReasonCode.CHECKSUM_MISMATCH: "do not use this service: it does not keep what it is given",
}
_NOT_THERE: Final = "see that VELRO_S3_ENDPOINT_URL and VELRO_S3_BUCKET name a bucket that is there"


def bucket_part(settings: S3Settings) -> Part[Any]:
    """The bucket, by about 25 requests that leave nothing behind."""
    quick = settings.model_copy(update={"timeout_s": min(settings.timeout_s, _TIMEOUT_S)})

    @asynccontextmanager
    async def opened() -> AsyncGenerator[BucketCapabilities | StoreFailed]:
        try:
            found: BucketCapabilities | StoreFailed = await probe_bucket(quick)
        except StoreFailed as error:
            found = error
        yield found

    return Part(
        name=f"bucket {settings.bucket}",
        opened=opened,
        checks={"keys": _keys, "capabilities": _capabilities, "clock": _clock},
        advice=_NOT_THERE,
    )


async def _keys(found: BucketCapabilities | StoreFailed) -> Verdict:
    if not isinstance(found, StoreFailed):
        return green("it lets us write, read and delete")
    if found.reason is ReasonCode.CREDENTIALS_REFUSED:
        return red(f"refused: {found.detail}", _ADVICE[found.reason])
    return yellow("unknown: the bucket cannot be used at all", "see its capabilities")


async def _capabilities(found: BucketCapabilities | StoreFailed) -> Verdict:
    if isinstance(found, StoreFailed):
        return red(f"{found.reason.value}: {found.detail}", _ADVICE.get(found.reason, _NOT_THERE))
    if found.reasons:
        return yellow(
            "; ".join(found.reasons), "nothing is lost by it; where you can choose, choose another"
        )
    return green(f"conditional puts, {found.body_check.value} of bodies, multipart, signed URLs")


async def _clock(found: BucketCapabilities | StoreFailed) -> Verdict:
    if isinstance(found, StoreFailed):
        return yellow("unknown: the bucket cannot be used at all", "see its capabilities")
    return judged_skew_s(found.clock_skew_s, unsure_s=_UNSURE_S)
