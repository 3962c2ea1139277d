"""A process as another user, for a worker that is root: `--run-as`.

Called by `spawning.Spawner`. Standard library only. It forks, which `posix_spawn` spares, as
only the child may change who it is: a launcher that took on the user's identity for a moment
could be killed by the user in that moment.
"""

import ctypes
import errno
import signal
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

UMASK = 0o077
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    program: str,
    argv: list[str],
    env: Mapping[str, str],
    user: Mapping[str, Any],
    files: tuple[int, int, int],
    signals: Iterable[signal.Signals],
) -> int:
    """The process id of `program`, started as the user in a session of its own.

    user:    `uid`, `gid`, `groups`.
    files:   what it has as input, output and error output; nothing else is open in it.
    signals: what is as the kernel has it by default, whatever the launcher ignores.
    Errors: OSError, as of an exec.
    """

    def prepare() -> None:  # in the child, which is the user already
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        # Neither sudo nor any file with a set-user-id bit leads back to root.
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")

    stdin, stdout, stderr = files
    try:
        process = subprocess.Popen(
            argv, executable=program, env=env, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True,
            user=user["uid"], group=user["gid"], extra_groups=user["groups"], umask=UMASK,
            preexec_fn=prepare,
        )  # fmt: skip
    except subprocess.SubprocessError as problem:  # in `prepare`
        raise PermissionError(errno.EPERM, str(problem)) from problem
    # The launcher reaps its children itself: this object must not wait for one of them.
    process.returncode = 0
    return process.pid
