"""How much of anything a caller may ask for. Every one is in the OpenAPI document too."""

from typing import Final

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""A whole request body: an input at its limit, written with JSON escapes, fits twice over."""

BODY_S: Final = 30.0
"""For a whole body to arrive."""

PIECE_S: Final = 60.0
"""For one piece of an answer to be taken; a page of large inputs takes a slow line a while."""

# Together under the log's 1 MiB an event with room for the envelope.
MAX_INPUT_BYTES: Final = 768 * 1024
MAX_METADATA_BYTES: Final = 64 * 1024

MAX_POSITION: Final = 2**63 - 1
"""Postgres' bigint."""

DEFAULT_WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 30.0

DEFAULT_PAGE: Final = 20
MAX_PAGE: Final = 100

DEFAULT_WATCH_S: Final = 300.0
MAX_WATCH_S: Final = 3600.0
