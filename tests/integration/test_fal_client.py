"""fal's own client, unmodified, against the sandbox: the proof that it speaks fal's protocol."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from velro.sandbox.server import RunningSandbox, TlsFiles, running_sandbox
from velro.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

SCRIPT = """
import asyncio, json, os, sys
import fal_client

async def main():
    said = {}
    small = {"prompt": "a fox", "num_images": 2, "image_size": {"width": 32, "height": 32}}
    handle = fal_client.submit("fal-ai/flux/dev", arguments=small)
    said["id"] = handle.request_id
    said["events"] = [type(event).__name__ for event in handle.iter_events(with_logs=True)]
    said["result"] = handle.get()
    again = fal_client.result("fal-ai/flux/dev", handle.request_id)
    said["same"] = again == said["result"]
    said["status"] = type(fal_client.status("fal-ai/flux/dev", handle.request_id)).__name__
    said["subscribed"] = len(fal_client.subscribe("fal-ai/flux/dev", arguments=small)["images"])

    waiting = await fal_client.submit_async(
        "fal-ai/flux/dev", arguments=small | {"sandbox": {"queue_s": 600}}
    )
    status = await waiting.status()
    said["waiting"] = [type(status).__name__, status.position]
    await waiting.cancel()
    async for event in waiting.iter_events(interval=0.05):
        last = event
    said["cancelled"] = [type(last).__name__, last.error_type]

    failing = fal_client.submit(
        "fal-ai/flux/dev", arguments=small | {"sandbox": {"fail": "model"}}
    )
    try:
        failing.get()
    except fal_client.client.FalClientHTTPError as error:
        said["failed"] = [error.status_code, error.message[0]["type"]]
    try:
        handle.cancel()
    except fal_client.client.FalClientHTTPError as error:
        said["late_cancel"] = error.response.json()
    print(json.dumps(said))

asyncio.run(main())
"""


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[RunningSandbox, None]:
    settings = SandboxSettings(data=tmp_path / "data")
    async with running_sandbox(settings, tls=certificate(tmp_path)) as running:
        yield running


def certificate(folder: Path) -> TlsFiles:
    """A certificate for localhost that is its own authority, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


async def run_client(sandbox: RunningSandbox, folder: Path, key: str) -> tuple[int, str, str]:
    """Run the script in a process of its own: the client reads its host when it is imported."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "FAL_KEY": key,
        "FAL_QUEUE_RUN_HOST": sandbox.url.removeprefix("https://"),
        "SSL_CERT_FILE": str(folder / "certificate.pem"),
        "NO_PROXY": "localhost",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(45):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


async def test_fals_own_client_submits_follows_reads_and_cancels(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    status, out, err = await run_client(sandbox, tmp_path, "sandbox-key")
    assert status == 0, err
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    record = next(each for each in sandbox.stats().requests if each.request_id == said["id"])
    assert said["events"][-1] == "Completed"
    assert [image["url"] for image in said["result"]["images"]] == [
        output.url for output in record.outputs
    ]
    assert said["same"]
    assert said["status"] == "Completed"
    assert said["subscribed"] == 2
    assert said["waiting"] == ["Queued", 0]
    assert said["cancelled"] == ["Completed", "client_cancelled"]
    assert said["failed"] == [422, "content_policy_violation"]
    assert said["late_cancel"] == {"status": "ALREADY_COMPLETED"}


async def test_fals_own_client_is_turned_away_without_the_key(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    status, _, err = await run_client(sandbox, tmp_path, "another")
    assert status != 0
    assert "Authentication is required" in err
    assert sandbox.stats().posted == {}
