"""From the log into tables, in batches, exactly once in effect; live and by replay."""
