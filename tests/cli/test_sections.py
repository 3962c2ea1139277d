"""The sections of a command's help."""

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
    assert titles("cancel") == ["Options:", "Which tasks:", "Server:"]
    assert titles("set") == ["Options:", "Which tasks:", "Changes:", "Server:"]
    assert titles("worker", "drain") == ["Options:", "Server:"]
    assert titles("worker") == ["Options:", "Commands:"]
