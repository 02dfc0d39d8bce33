"""No commit is lost: planned restarts, killed masters, workers that vanish, a database that is busy."""
