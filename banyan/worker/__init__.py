"""The worker: claims what fits on this machine, runs it, reports it."""
