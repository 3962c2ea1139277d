"""Other queues on the same work, one file each; run by `scripts/bench peers`.

These files run in an environment of their own, which knows nothing of Banyan: the standard
library, the peer itself, and the modules of `tests.bench` that need nothing more.
"""
