"""How OSCAR comes into the head node: a module for each kind of source."""
