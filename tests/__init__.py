"""The tests. Shared parts (servers, processes, waiting) live in `tests.harness`."""
