"""The kinds of base images: one module each, an object that is a `Kind`."""
