"""A whole farm on one machine: Subversion, mail, Buildbot master and worker. For `make demo` and the tests."""
