"""Copies outputs from dying links into the bucket of the team and says so in the log."""
