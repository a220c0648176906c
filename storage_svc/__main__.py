"""`python -m storage_svc`."""

from storage_svc.main import main

main()
