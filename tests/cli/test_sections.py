"""The sections of a command's help."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from banyan.cli.main import banyan


def titles(*command: str) -> list[str]:
    shown = CliRunner().invoke(banyan, [*command, "--help"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    return [line for line in lines if line.endswith(":") and not line.startswith(" ")]


def test_the_many_options_of_a_submission_stand_in_sections() -> None:
    assert titles("submit") == [
        "Options:", "Resources:", "When it runs:", "Ends and failures:", "Many at once:", "Server:",
    ]  # fmt: skip


def test_the_ways_to_the_server_stand_apart_in_every_command() -> None:
    assert titles("cancel") == ["Arguments:", "Options:", "Which tasks:", "Server:"]
    assert titles("set") == ["Arguments:", "Options:", "Which tasks:", "Changes:", "Server:"]
    assert titles("worker", "drain") == ["Arguments:", "Options:", "Server:"]
    assert titles("worker") == ["Options:", "Commands:"]


def every_command() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(banyan)
    for name in banyan.list_commands(context):
        command = banyan.get_command(context, name)
        assert command is not None
        yield (name,), command
        for below, inner in getattr(command, "commands", {}).items():
            yield (name, below), inner


@pytest.mark.parametrize(("words", "command"), list(every_command()))
def test_help_says_what_tasks_workers_and_accounts_may_be(
    words: tuple[str, ...], command: click.Command
) -> None:
    named = {
        (one.metavar or str(one.name).upper()).strip("[].")
        for one in command.params
        if isinstance(one, click.Argument)
    }
    shown = " ".join(CliRunner().invoke(banyan, [*words, "--help"]).output.split())
    for name, may_be in {"TASK": "@NAME", "WORKER": "A host", "ACCOUNT": "name or"}.items():
        assert name not in named or may_be in shown
