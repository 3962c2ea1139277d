"""The pure rules of the queue: standard library only; no I/O, no clock, no randomness."""
