"""What both services use: the contracts, the log, projections, the object store."""
