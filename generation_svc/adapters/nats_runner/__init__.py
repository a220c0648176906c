"""Work taken from the log: a durable consumer on FastStream, delivery policy, dead letters."""
