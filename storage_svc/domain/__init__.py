"""Commands, decisions and policies of keeping one generation. Pure: no clock, no I/O."""
