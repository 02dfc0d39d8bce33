"""The head node of a run, reached by SSH."""
