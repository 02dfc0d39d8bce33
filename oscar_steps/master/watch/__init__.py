"""Where changes come from: what the master watches."""
