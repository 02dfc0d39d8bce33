"""The compute nodes of a run: their state machines, and what feeds them."""
