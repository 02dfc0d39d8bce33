"""The Buildmaster's side: from site and matrix to Buildbot's configuration (`configuration.build_configuration`).

It knows jobs and verdicts, never virtual machines: all real work is done by the testing driver on the workers.
"""
