"""OSCAR's tarballs: their names and order, sets, where they lie, whether they are genuine, what is in them."""
