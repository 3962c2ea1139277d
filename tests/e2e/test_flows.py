"""The three ways in that have to feel right, with the commands as the README has them."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.e2e.written import in_order, indented, read, shell
from tests.harness import Processes, eventually
from tests.harness.processes import ROOT

README = read("README.md")


def lines_of(heading: str) -> list[str]:
    """The commands under a heading, without what is said about them."""
    return [re.sub(r"\s+# .*", "", line) for line in indented(README, heading).splitlines()]


@pytest.mark.timeout(180)
def test_a_laptop_in_a_minute(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    begun = time.monotonic()
    stack = Stack(processes, tmp_path)
    run, *_ = [line for line in lines_of("Two commands") if line.startswith("banyan run")]
    assert (
        shell(stack, tmp_path, f"{run}; echo ended with $?", strict=False) == "hi\nended with 3\n"
    )
    assert time.monotonic() - begun < 60
    following = [line for line in lines_of("Two commands") if re.match("banyan (ls|log)", line)]
    assert len(following) == 2
    assert "sh -c" in shell(stack, tmp_path, "\n".join(following))


def test_a_second_machine_joins_with_one_copied_line(
    stack: Stack, processes: Processes, tmp_path: Path
) -> None:
    (invite,) = lines_of("A second machine")
    (line,) = shell(stack, tmp_path, invite).splitlines()
    machine = tmp_path / "second"
    machine.mkdir()
    shell(stack, machine, "true")  # puts `banyan` there
    elsewhere = {
        "BANYAN_CONFIG": str(machine / "config.toml"),
        "XDG_STATE_HOME": str(machine / "state"),
        "PATH": f"{machine / '.programs'}:/usr/bin:/bin",
    }
    copied = f"cd {machine}; {line} --host second-machine"
    worker = processes.start(["sh", "-c", copied], environment=elsewhere)

    def joined() -> dict[str, object]:
        found = stack.json("worker", "list", "--json")
        return next((one for one in found if one["host"] == "second-machine"), {})

    resources = json.loads(json.dumps(eventually(joined, 30)["resources"]))
    assert resources["cores"] >= 1
    assert resources["memory"] > 2**28
    stack.call("worker", "drain", "second-machine", code=3)  # it is another account's
    token = stack.text("account", "create", "me", "--role", "operator")
    operator = {"BANYAN_URL": stack.url, "BANYAN_TOKEN": token}
    stack.call("worker", "drain", "second-machine", environment=operator)
    eventually(lambda: joined()["mode"] == "draining")
    stack.call("worker", "remove", "second-machine", environment=operator)
    worker.wait(30)


@pytest.mark.timeout(300)
def test_a_sweep_of_which_three_fail(stack: Stack, tmp_path: Path) -> None:
    commands = lines_of("A sweep, of which some fail")
    commands = commands[: next(i for i, one in enumerate(commands) if one.startswith("from "))]
    before = "\n".join(commands[:4])
    output = shell(stack, tmp_path, before, strict=False)
    in_order("500 of 500 ended: 497 succeeded, 3 failed", output.splitlines()[-1])
    which, why, *mended = commands[4:]
    assert len(shell(stack, tmp_path, f"{which} -q").splitlines()) == 3
    told = shell(stack, tmp_path, why)
    assert sorted(re.findall(r"^no data for (\d+)$", told, re.MULTILINE)) == ["150", "300", "450"]
    assert re.search(r"OUTCOME +success +500\n", shell(stack, tmp_path, "\n".join(mended)))


def test_the_python_of_the_readme(stack: Stack, tmp_path: Path) -> None:
    lines = lines_of("A sweep, of which some fail")
    program = "\n".join(lines[next(i for i, one in enumerate(lines) if one.startswith("from ")) :])
    (tmp_path / "program.py").write_text(program)
    output = shell(stack, tmp_path, "python3 program.py", PYTHONPATH=str(ROOT))
    assert [int(line) for line in output.split()][1:] == [2500]
