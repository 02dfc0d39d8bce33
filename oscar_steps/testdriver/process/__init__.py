"""The process that owns a run, and what other processes see of it."""
