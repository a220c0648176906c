"""The log, kept a second time in the bucket: segments of events, each naming the one before."""
