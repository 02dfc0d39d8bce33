"""OSCAR's tarballs: names and their order, sets, where they lie, whether they are whole and genuine, what is in them."""
