"""Technology behind the ports: Postgres, downloads, the log."""
