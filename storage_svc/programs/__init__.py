"""What the storage service can be started as: each program from its settings to its end."""
