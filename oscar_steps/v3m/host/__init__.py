"""The virtualization host: what it can do, its settings, its processes."""
