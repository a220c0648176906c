"""The command `storage-svc`, and `python -m storage_svc`."""

from shared.starting import start


def main() -> None:
    """Run the command line."""
    start("storage_svc.main")


if __name__ == "__main__":
    main()
