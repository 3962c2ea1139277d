"""Benchmarks of a whole stack on this machine; run by `scripts/bench`."""
