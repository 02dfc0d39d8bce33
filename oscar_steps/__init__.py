"""The OSCAR testing farm: one package for the master, the testing driver, V3M and what is known about OSCAR."""
