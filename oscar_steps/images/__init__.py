"""Base images on a virtualization host: recipes, the store, and the seed of one run."""
