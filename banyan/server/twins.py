"""One request with a claim_id at a time.

A worker may break off a claim that is held and send it again while the first is being answered.
Were both looked at together, neither would see what the other takes, and of the two answers one
reaches nobody. Called by the verbs `claim` and `steal`. It orders the requests of this process
only; what two processes take for one claim_id, the worker's next list of attempts gives back.
"""

import threading
from contextlib import AbstractContextManager, nullcontext

_LOCKS = [threading.Lock() for _ in range(64)]  # different ids may share one: they only wait


def one_at_a_time(claim_id: str | None) -> AbstractContextManager[object]:
    """To be held from the look for what the claim_id has got until its claims are written."""
    return _LOCKS[hash(claim_id) % len(_LOCKS)] if claim_id else nullcontext()
