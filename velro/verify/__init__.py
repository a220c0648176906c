"""`velro verify`: whether log, read models and bucket say the same, and what to do where not."""
