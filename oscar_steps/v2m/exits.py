"""Exit statuses: few and fixed, the same for every command."""

EXIT_NOT_INSTALLED = 1
"""An installation has ended, and the machine is not installed."""
EXIT_STATE = 3
"""A machine's state forbids it, e.g. to pause one that is off."""
EXIT_HOST = 20
"""The host's fault: a program is missing, a file cannot be written, a daemon has died."""
EXIT_PROFILE = 64
"""A profile, a name or a file that was given is wrong. (A command line that is wrong: 2, as click has it.)"""
