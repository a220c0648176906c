"""The HTTP API: what callers and providers ask of the service, and nothing decided here."""
