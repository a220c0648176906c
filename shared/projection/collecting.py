"""Python's cycle collector, told to come rarely while a whole log is being read."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

# Three batches of 2,000 events are some 180,000 objects, all freed by counting references. The
# collector takes their coming for growth and looks for cycles every 700: 10 us an event, a third
# of everything. With this it looks only where objects stay.
_OBJECTS_BETWEEN_LOOKS: Final = 400_000


@contextmanager
def collecting_rarely() -> Generator[None]:
    """Look for cycles rarely while the context is open, in the whole process."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
