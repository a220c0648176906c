"""Commands, decisions and folds of one generation. Pure: no clock, no I/O."""
