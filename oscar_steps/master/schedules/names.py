"""What the schedulers and what they ask for are called."""

PER_COMMIT = "commit"
NIGHTLY = "nightly"
WEEKLY = "weekly"
FORCE = "force"
CHANGES = "changes"
"""Build property: ids of the changes that this build was made for, and no others. Only their authors are notified."""
