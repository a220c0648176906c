"""The log as a port: append with an expected version, load one aggregate, read on."""
