"""`python -m generation_svc`."""

from generation_svc.main import main

main()
