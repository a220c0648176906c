"""The table of generations: its fold, its SQL, its schema."""
