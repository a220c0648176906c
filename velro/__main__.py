"""The command `velro`, and `python -m velro`."""

from shared.starting import start


def main() -> None:
    """Run the command line."""
    start("velro.cli")


if __name__ == "__main__":
    main()
