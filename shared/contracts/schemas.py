"""JSON Schemas of the events, for other languages: `python -m shared.contracts.schemas`.

They say what may be written. A reader tolerates more: fields that a newer writer added.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from shared.contracts.envelope import ENVELOPES

FOLDER: Final = Path(__file__).parent / "schemas"


def schemas() -> dict[str, str]:
    """The text of every schema, by its file's name."""
    return {
        f"{event_type.type}.json": json.dumps(_schema(event_type.type, envelope), indent=2) + "\n"
        for event_type, envelope in ENVELOPES.items()
    }


def _schema(type_name: str, envelope: Any) -> dict[str, Any]:  # noqa: ANN401 - a class made by pydantic
    schema: dict[str, Any] = envelope.model_json_schema()
    # Defaults spare our own code from saying them; on the wire they are said.
    schema["required"] = ["specversion", "type", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": type_name} | {
        name: part for name, part in schema.items() if name != "title"
    }


def write() -> None:
    """Make the folder hold exactly the current schemas."""
    FOLDER.mkdir(exist_ok=True)
    current = schemas()
    for path in FOLDER.glob("*.json"):
        if path.name not in current:
            path.unlink()
    for name, text in current.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
