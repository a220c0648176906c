"""The archive's format as it is written down is the one that is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from shared.archive.segment import NO_SEGMENT, pack, unpack
from shared.event_log.port import WholeRecord

DOCUMENT = Path(__file__).parents[2] / "docs" / "archive-format.md"


def test_the_reader_in_the_document_reads_a_segment() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    written: dict[str, Any] = {}
    exec(program, written)  # noqa: S102 - our own document
    kept = [
        WholeRecord(number, f"velro.generation.{number}", b"{}" * number, b"A: b\r\n", 7 + number)
        for number in (4, 5, 6)
    ]
    segment = pack(kept, previous=NO_SEGMENT)
    _, content = unpack(
        segment.packed, content_sha256=segment.content_sha256, max_bytes=segment.content_bytes
    )
    assert list(written["records"](content)) == [
        (one.position, one.stored_at_ns, one.subject.encode(), one.headers, one.data)
        for one in kept
    ]
