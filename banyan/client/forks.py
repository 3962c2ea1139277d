"""What a process that was forked must not share with its parent.

A fork copies what a thread holds, but no thread; and by a copied connection come the parent's
answers. So whatever holds a connection, a thread or a lock begins anew in the child.
"""

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something that a child has a copy of."""

    def after_fork(self) -> None:
        """Called in the child, which has no other thread yet. It must neither wait nor ask."""


_known: "weakref.WeakSet[Inherited]" = weakref.WeakSet()


def tell(inherited: Inherited) -> None:
    """From now on it hears of each fork, in the child."""
    _known.add(inherited)


def _tell_all() -> None:
    for inherited in list(_known):
        inherited.after_fork()


os.register_at_fork(after_in_child=_tell_all)
