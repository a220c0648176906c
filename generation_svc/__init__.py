"""Runs generations at a provider and says in the log what became of them."""
