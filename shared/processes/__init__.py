"""More processes than one, for work that is Python's alone: each has an owner, and ends with it."""
