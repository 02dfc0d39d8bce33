"""Many cells: what Buildbot does per builder, and would do 1,500 times, done once."""
