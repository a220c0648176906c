"""Postgres as both services use it: connections, pools, named queries from `.sql` files."""
