"""Bytes from a provider's link into the bucket: fetched under guard, known by what they are."""
