"""Velro from the outside: the command line, the local stack, the sandbox provider, the demo."""
