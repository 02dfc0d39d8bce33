"""When something is tested: after a commit, by the clock, and when a person asks for it."""
