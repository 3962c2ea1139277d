"""One process from a command: its program found, its pipes tied, its session its own.

Called by the launcher, which starts tasks in one thread (the working directory is the process's).
Standard library only. `posix_spawn` shares memory until the program is there, so that starting
a task costs the same however large the launcher is; but it waits for that. What may wait for
ever, and a process of another user, are left to `forking`. It must never wait for a directory.
"""

import errno
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from banyan.worker import programs
from banyan.worker.places import Places

NOT_FOUND, NOT_EXECUTABLE = 127, 126

# What Python or `nohup` set to be ignored would stay ignored in the task.
SIGNALS_RESET = [
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
]
# The machine is short of something: no fault of the task, it may run elsewhere.
_SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


class Answer(NamedTuple):
    """A further pipe for a process: for what is no output. Which, an environment variable says.

    variable: its name; it gets the number of the file, and `bytes_max`, of which the spool says
              what it is.
    """

    variable: str
    bytes_max: int


class Spawned(NamedTuple):
    """A started process and the reading ends of its pipes.

    No read of these waits. A task may open its own output for reading, and so take what the kernel
    has already announced here.
    begins:  another pipe, where the program is not there yet: see `forking.failure_in`.
    writing: the other ends, which the caller closes: as the process has them by then, it may wait.
             It is to do so before the next start, and never while one is under way: a process that
             is just being started has copies, and would wait in its place.
    by_user: it becomes another user before its program is there.
    """

    pid: int
    stdout: int
    stderr: int
    begins: int | None = None
    writing: tuple[int, ...] = ()
    by_user: bool = False
    answer: int | None = None


class NotStarted(Exception):
    """Why a command was not started.

    exit_code: as a shell would say it: 127 not found, 126 not executable; None where the
    machine is to blame (out of processes, memory or files), so that nothing is held
    against the task.
    """

    def __init__(self, exit_code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason.encode(errors="backslashreplace").decode()  # what a server can keep


class Spawner:
    """Starts processes; knows the limits that tasks are to inherit."""

    def __init__(self) -> None:
        """Raises the launcher's own limit of open files: it holds some for each task."""
        self._null = os.open(os.devnull, os.O_RDWR)
        # What `launching.py` gives a launcher for its input is the task's, too.
        self._input_is_null = os.path.sameopenfile(0, self._null)
        self._places = Places()
        self._home = os.getcwd()
        self._directory = self._home
        self._task_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = self._task_files[1]
        self._own_files = (hard, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._own_files)

    def spawn(
        self,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str,
        user: Mapping[str, Any] | None = None,
        answer: Answer | None = None,
    ) -> Spawned:
        """Starts `argv` in a session of its own, its input empty. Errors: NotStarted.

        user: as whom (`User.to_json`); None: as the launcher itself.
        """
        cwd = os.path.join(self._home, cwd)  # not relative to the last task's
        name, path = argv[0] if argv else "", env.get("PATH", os.defpath)
        program = name
        pipes: list[int] = []
        try:
            forks = user is not None or not self._all_answer(cwd, name, path)
            if not forks:
                self._enter(cwd)
                program = find(name, path)
                forks = not _opens(program)
            for _ in range(3 if answer else 2):
                pipes += os.pipe()
                os.set_blocking(pipes[-2], False)  # our end alone
            if answer:
                os.set_inheritable(pipes[5], True)  # it is closed here before the next start
                env = {**env, answer.variable: f"{pipes[5]} {answer.bytes_max}"}
            files = (self._null, pipes[1], pipes[3])
            if forks:
                pid, begins = self._fork(argv, env, cwd, user, files, pipes[5:])
            else:
                pid, begins = self._spawn(program, argv, env, files), None
        except Exception as error:
            _close(pipes)
            if isinstance(error, OSError | ValueError):
                raise not_started(name, error, program) from error
            raise
        writing, by_user = tuple(pipes[1::2]), user is not None
        return Spawned(pid, pipes[0], pipes[2], begins, writing, by_user, *pipes[4:5])

    def _all_answer(self, cwd: str, name: str, path: str) -> bool:
        """Whether the directory, and all where the program is looked for, are no trouble."""
        looked_at = [name] if "/" in name else path.split(os.pathsep)
        return self._places.answer(os.path.join(cwd, each) for each in ("", *looked_at))

    def go_home(self) -> None:
        """Leaves the last task's directory, so that it can be removed or unmounted."""
        if self._directory != self._home:
            os.chdir(self._home)
            self._directory = self._home

    def _spawn(
        self, program: str, argv: list[str], env: Mapping[str, str], files: tuple[int, int, int]
    ) -> int:
        ties = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
        try:
            if self._own_files != self._task_files:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._task_files)
            return os.posix_spawn(
                program,
                argv,
                env,
                file_actions=ties[self._input_is_null :],
                setsid=True,
                setsigmask=[],
                setsigdef=SIGNALS_RESET,
            )
        except OSError as error:
            if by_shell := programs.by_shell(program, argv, error):
                return self._spawn(by_shell[0], by_shell, env, files)
            raise
        finally:
            if self._own_files != self._task_files:  # which are those that it had at first
                resource.setrlimit(resource.RLIMIT_NOFILE, self._own_files)

    def _fork(
        self,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str,
        user: Mapping[str, Any] | None,
        files: tuple[int, int, int],
        others: Sequence[int],
    ) -> tuple[int, int | None]:
        from banyan.worker import forking  # which needs this module

        if user is not None:
            for pipe in files[1:]:  # so that the user may open /dev/stdout and /dev/stderr
                os.fchown(pipe, user["uid"], -1)
        pid, begins = forking.fork(
            forking.Order(argv, env, cwd, user, files, self._task_files, others)
        )
        os.set_blocking(begins, False)  # others of its user may hold the writing end
        return pid, begins

    def _enter(self, cwd: str) -> None:
        if cwd != self._directory:
            enter(cwd)
            self._directory = cwd


def _close(pipes: Sequence[int]) -> None:
    for pipe in pipes:
        os.close(pipe)


def enter(cwd: str) -> None:
    """Makes it the working directory. Errors: NotStarted."""
    try:
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        raise NotStarted(NOT_EXECUTABLE, f"cwd {cwd!r}: {_told(error)}") from error


def _opens(program: str) -> bool:
    """Whether the kernel would open it at once: not where somebody has a lease on it.

    An exec waits until whoever has it gives it up, for as long as /proc/sys/fs/lease-break-time.
    """
    try:
        os.close(os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except (BlockingIOError, PermissionError):  # what may not be read may have one
        return False
    except (OSError, ValueError):  # the start will tell
        pass
    return True


def find(name: str, path: str) -> str:
    """The program's file, looked for as the task itself would, with the task's own PATH.

    Errors: NotStarted.
    """
    if "/" in name:
        return name
    there = None
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory or ".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if os.path.exists(candidate):
            there = candidate
    if there:
        raise NotStarted(NOT_EXECUTABLE, f"{there!r} is not executable")
    raise NotStarted(NOT_FOUND, f"no program {name!r} in PATH ({path})")


def not_started(name: str, error: OSError | ValueError, program: str) -> NotStarted:
    """What it means to a task that its program could not be started.

    name: what the task asked for; program: the file that was found by it.
    """
    code = getattr(error, "errno", None)
    if code in _SHORTAGES:
        return NotStarted(None, f"the worker cannot start a process: {_told(error)}")
    exit_code = NOT_FOUND if code in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    cause = programs.cause(program, error) if isinstance(error, OSError) else ""
    told = f"{cause} ({_told(error)})" if cause else _told(error)
    return NotStarted(exit_code, f"{name!r}: {told}")


def _told(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
