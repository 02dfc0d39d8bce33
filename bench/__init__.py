"""Benchmarks, run by hand. A number counts with the machine it was measured on; ratios travel better."""
