"""Technology behind the ports: HTTP, providers, NATS, Postgres."""
