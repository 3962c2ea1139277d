"""`banyan`: finds the command, runs it, and turns what went wrong into one line and an exit code.

The console script and `python -m banyan` call `main`. Commands are imported when they are
asked for, so that none pays for what another needs.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from banyan import __version__
from banyan.cli import streams
from banyan.cli.sections import with_sections
from banyan.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, BanyanError

SECTIONS = {
    "Start": {
        "up": ("start", "Server, database and a worker, all on this machine."),
        "down": ("down", "End what 'banyan up' started."),
        "server": ("start", "The server alone."),
        "worker": ("worker", "A worker; list, invite, drain, resume, remove workers."),
        "doctor": ("doctor", "Check a living database, and mend it."),
    },
    "Tasks": {
        "submit": ("submit", "Put a task into the queue."),
        "run": ("run", "Submit a task, follow its output, end as it ends."),
        "ls": ("ls", "List tasks."),
        "show": ("show", "All about one task."),
        "log": ("log", "What a task has written."),
        "wait": ("ending", "Wait until tasks have ended."),
        "cancel": ("ending", "Cancel tasks."),
        "set": ("changing", "Change tasks that wait: memory, priority, on hold."),
        "release": ("ending", "Let held tasks go."),
        "retry": ("ending", "Give ended tasks one more attempt."),
        "forget": ("ending", "Remove ended tasks with their output."),
        "explain": ("explain", "Why a task does not run, or where its time went."),
        "script": ("explain", "A shell script that runs a task again by hand."),
        "result": ("telling", "In a task: what it gives back, as JSON."),
        "results": ("results", "What tasks have given back: a table, or CSV."),
    },
    "Overview": {
        "progress": ("progress", "How far tasks are, live; in a task: how far it is."),
        "top": ("top", "Workers and what they run, live."),
        "stats": ("stats", "How many, how long, how busy."),
        "usage": ("usage", "Which account has used how many hours."),
    },
    "Access": {
        "login": ("access", "Remember a server and a token."),
        "account": ("access", "Create, list and revoke accounts."),
        "config": ("config", "Which settings are in force, and where they come from."),
        "completion": ("completion", "For the Tab key of bash, zsh or fish."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

EXIT_CODES = (
    "Exit codes: 0 done, 1 a task failed, 2 wrong usage, 3 not found, 4 refused, "
    "5 no or wrong token, 74 the output cannot be written, 75 no server or not in time, "
    "130 interrupted."
)


COMPLETION_VARIABLE = "_BANYAN_COMPLETE"


# What others call it.
_MEANT = {
    "help": ["--help"],
    "add": ["submit"], "start": ["up"], "stop": ["down", "cancel"], "kill": ["cancel"],
    "rm": ["forget"],
    "delete": ["forget"], "remove": ["forget"], "list": ["ls"], "ps": ["ls"], "queue": ["ls"],
    "jobs": ["ls"], "status": ["show", "ls"], "info": ["show"], "logs": ["log"], "cat": ["log"],
    "output": ["log"], "tail": ["log"], "why": ["explain"], "requeue": ["retry"],
    "resubmit": ["retry"], "exec": ["run"], "workers": ["worker list"], "nodes": ["worker list"],
    "accounts": ["account list"], "token": ["account create"], "hold": ["set --hold"],
    "update": ["set"], "edit": ["set"], "change": ["set"], "begin": ["submit --not-before"],
    "sacct": ["usage", "stats"], "sreport": ["usage"],
}  # fmt: skip


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual; for what there is not, what may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            meant = _MEANT.get(args[0]) or difflib.get_close_matches(args[0], COMMANDS, 1, 0.5)
            told = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
            raise click.UsageError(error.message + told, ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, as the sections have them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"banyan.cli.{COMMANDS[cmd_name][0]}")
        return with_sections(getattr(module, f"{cmd_name}_command"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of `banyan --help`, without importing any command."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry[1]) for name, entry in commands.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="banyan")
def banyan() -> None:
    """A job queue: give it commands, and machines with room run them.

    \b
    Example:
      banyan up &
      banyan run --cores 1 -- sh -c 'echo hi; exit 3'
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command line (left out: of this process) and ends the process."""
    streams.take_over()
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _without_traceback(lambda: run(words))
    unwritten = _told(sys.stdout.flush)
    sys.exit(code or unwritten)


def run(arguments: list[str]) -> int:
    """Runs one command line; the exit code."""
    return _told(lambda: _invoke(arguments))


def _invoke(arguments: list[str]) -> Any:
    if COMPLETION_VARIABLE in os.environ:
        return _complete(os.environ[COMPLETION_VARIABLE])
    with banyan.make_context("banyan", arguments) as context:
        return banyan.invoke(context)


def _told(work: Callable[[], Any]) -> int:
    """Does the work and tells what went wrong; the exit code."""
    try:
        result = work()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        _show(error)
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        streams.forget_output()
        return EXIT_OK
    except BanyanError as error:
        if error.word == "output":
            streams.forget_output()
        _tell(error)
        return error.exit_code
    return result if isinstance(result, int) else EXIT_OK


def _without_traceback(work: Callable[[], int]) -> int:
    """Does the work; what no part of it has foreseen is told in a sentence, too."""
    try:
        return work()
    except OSError as problem:
        error = BanyanError("usage", _in_words(problem))
        error.__cause__ = problem
    except Exception as problem:
        seen = f"{type(problem).__name__}: {problem!s:.200}"
        message = f"this is a bug in Banyan ({seen}); BANYAN_LOG_LEVEL=debug shows where"
        error = BanyanError("internal", message)
        error.__cause__ = problem
    _tell(error)
    return error.exit_code


def _in_words(problem: OSError) -> str:
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the directory here has been removed: go to another one"
    place = f"{problem.filename}: " if problem.filename else ""
    return f"{place}{problem.strerror or problem}"


def _complete(instruction: str) -> int:
    """Answers the shell, which asks at the Tab key."""
    from click.shell_completion import shell_complete

    return shell_complete(banyan, {}, "banyan", COMPLETION_VARIABLE, instruction)


def _show(error: click.ClickException) -> None:
    """As click words it, which quotes arguments and names of files just as they are."""
    import io

    from banyan.cli.output import say

    told = io.StringIO()
    error.show(told)
    say(told.getvalue().removesuffix("\n"))


def _tell(error: BanyanError) -> None:
    import logging  # only what goes wrong pays for it

    from banyan import logs
    from banyan.cli.output import say
    from banyan.config import knobs
    from banyan.printable import harmless

    if logs.in_json():
        logging.error(error.message, extra={"word": error.word, "issues": error.issues})
        return
    message = error.message.removesuffix(": see _issues") if error.issues else error.message
    if error.word == "unauthenticated" and "login" not in message:
        message = f"the server does not know this token (any more): {_of_token()}"
    say(f"banyan: {message}")
    if error.__cause__ and knobs().LOG_LEVEL == "debug":
        import traceback

        say("".join(traceback.format_exception(error.__cause__)))
    for name, issue in _flat(error.issues):
        say(f"  {harmless(name)}: {harmless(issue)}" if name else f"  {harmless(issue)}")


def _of_token() -> str:
    if os.environ.get("BANYAN_TASK_TOKEN"):
        told = "a task's own is worth nothing once its attempt has ended"
        return f"{told}, or the account of its owner or of its worker has been revoked"
    return "see 'banyan login --help'"


_LEVELS_MAX = 20  # of a task's fields there are fewer


def _flat(issues: Any, name: str = "", level: int = 0) -> list[tuple[str, str]]:
    if level == _LEVELS_MAX:
        return [(name, "…")]
    if isinstance(issues, dict):
        parts = [(f"{name}.{key}" if name else str(key), value) for key, value in issues.items()]
        return [found for key, value in parts for found in _flat(value, key, level + 1)]
    if isinstance(issues, list):
        return [found for value in issues for found in _flat(value, name, level + 1)]
    return [(name, str(issues))]
