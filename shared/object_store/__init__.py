"""The bucket as a port, and S3 behind it."""
