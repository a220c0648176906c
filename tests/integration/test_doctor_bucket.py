"""What the doctor says of the bucket, when it should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.doctoring import examined
from tests.object_stores import rclone_s3, settings_for, told_s3
from velro.doctor.bucket import bucket_part
from velro.doctor.findings import Level
from velro.stack import ports

if TYPE_CHECKING:
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address


async def test_a_bucket_that_does_all_is_green(bucket: S3Address) -> None:
    found = await examined(bucket_part(settings_for(bucket)))
    assert {finding.level for finding in found.values()} == {Level.GREEN}
    assert set(found) == {"keys", "capabilities", "clock"}


async def test_a_bucket_that_ignores_conditions_is_yellow(tmp_path: Path) -> None:
    with rclone_s3(tmp_path) as address:
        found = await examined(bucket_part(settings_for(address)))
    assert found["capabilities"].level is Level.YELLOW
    assert "If-None-Match" in found["capabilities"].found
    assert found["keys"].level is Level.GREEN


async def test_keys_that_are_refused_are_red_and_say_which_to_set(bucket: S3Address) -> None:
    wrong = replace(bucket, secret_key="expired")
    found = await examined(bucket_part(settings_for(wrong)))
    assert found["keys"].level is Level.RED
    assert "VELRO_S3_ACCESS_KEY" in found["keys"].advice


async def test_a_full_bucket_is_red() -> None:
    async with told_s3() as told:
        told.refusals["PUT"] = (507, "InsufficientStorage")
        found = await examined(bucket_part(settings_for(told.address)))
    assert found["capabilities"].level is Level.RED
    assert "bucket_full" in found["capabilities"].found


async def test_no_bucket_and_no_service_are_red(bucket: S3Address, tmp_path: Path) -> None:
    missing = replace(bucket, bucket="not-there")
    port = ports.choose(dict.fromkeys(("nobody",)), tmp_path / "ports.json")["nobody"]
    away = replace(bucket, endpoint_url=f"http://127.0.0.1:{port}")
    for address in (missing, away):
        found = (await examined(bucket_part(settings_for(address))))["capabilities"]
        assert found.level is Level.RED
        assert "VELRO_S3_BUCKET" in found.advice
