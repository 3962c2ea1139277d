"""Load and faults at one time, and the question whether every promise was kept: `scripts/chaos`."""
