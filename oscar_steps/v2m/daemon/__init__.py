"""The daemon that owns the machines of one system of `v2m`, and its client."""
