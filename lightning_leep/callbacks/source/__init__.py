"""Before training: the data that are scored, and the pass that leaves them as they were."""
