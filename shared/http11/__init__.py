"""HTTP/1.1 for bodies that are moved, without the copies and the objects of a general client."""
