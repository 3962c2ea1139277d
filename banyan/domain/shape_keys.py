"""The keys of shapes: equal for tasks that any worker could take in each other's place."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

QUEUE_DIGITS = 16


def shape_key(request: Mapping[str, object], queue: str, labels: Mapping[str, str]) -> str:
    """32 hex digits, equal for tasks that ask for the same; the first ones are the queue's key.

    So the shapes of one queue stand together, and a claim reads no other ones.
    """
    text = json.dumps([request, labels], sort_keys=True, separators=(",", ":"))
    return queue_key(queue) + _digits(text)


@lru_cache(maxsize=1000)
def queue_key(queue: str) -> str:
    """16 hex digits that stand for a queue."""
    return _digits(queue)


def queue_key_in(shape: str) -> str:
    """The key of the queue of a shape."""
    return shape[:QUEUE_DIGITS]


def _digits(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:QUEUE_DIGITS]
