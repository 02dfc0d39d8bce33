"""The steps of Buildbot's builds."""
