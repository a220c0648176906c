"""The command `generation-svc`, and `python -m generation_svc`."""

from shared.starting import start


def main() -> None:
    """Run the command line."""
    start("generation_svc.main")


if __name__ == "__main__":
    main()
