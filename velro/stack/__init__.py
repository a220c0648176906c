"""The real servers as child processes: NATS, PostgreSQL and SeaweedFS from their wheels."""
