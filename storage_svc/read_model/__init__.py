"""The backlog: its fold, its SQL, its schema."""
