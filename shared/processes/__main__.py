"""What a child runs: see `child.py`."""

from shared.processes.child import run_child

run_child()
