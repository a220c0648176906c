"""The use cases of keeping media, one verb a file, and the ports they need."""
