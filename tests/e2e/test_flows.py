"""The three ways in that have to feel right, with the commands as the README has them."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.e2e.written import bash, in_order, indented, read, shell, with_banyan
from tests.harness import Processes, eventually
from tests.harness.processes import ROOT

README = read("README.md")


def lines_of(heading: str) -> list[str]:
    """The commands under a heading, without what is said about them."""
    return [re.sub(r"\s+# .*", "", line) for line in indented(README, heading).splitlines()]


@pytest.mark.timeout(180)
def test_a_laptop_in_a_minute(processes: Processes, tmp_path: Path) -> None:
    """From a home where nothing is: each line as it stands, but any free port."""
    activate, up, run, *then = [line for line in lines_of("Two commands") if "scripts/" not in line]
    assert (activate, up) == (". .venv/bin/activate", "banyan up &")
    assert (ROOT / "scripts" / "setup").read_text().count(".venv") > 1  # what makes it
    home = {**processes.environment(), "HOME": str(tmp_path), "BANYAN_PORT": "0"}
    home |= {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "DATA", "STATE")}
    with_banyan(tmp_path)
    begun = time.monotonic()
    started = processes.start([str(tmp_path / ".programs" / "banyan"), *up.split()[1:-1]], home)
    assert started.line(60).startswith("Banyan is ready at http://127.0.0.1:")
    output = bash(tmp_path, f"{run}; echo ended with $?", home, strict=False)
    assert output == "hi\nended with 3\n"
    assert time.monotonic() - begun < 60
    assert [line.split()[1] for line in then] == ["submit", "ls", "log", "explain"]
    in_order("fitted", bash(tmp_path, "\n".join(then), home))
    started.signal(signal.SIGINT)
    assert started.wait(40) == 0


def test_a_second_machine_joins_with_a_copied_line_and_its_token(
    stack: Stack, processes: Processes, tmp_path: Path
) -> None:
    invite, *look_after = lines_of("A second machine")
    # Here both are on one machine.
    invite = invite.replace("https://head:5100", stack.url)
    line, token = shell(stack, tmp_path, invite).splitlines()
    assert token not in line
    machine = tmp_path / "second"
    machine.mkdir()
    with_banyan(machine)
    elsewhere = {
        "BANYAN_CONFIG": str(machine / "config.toml"),
        "HOME": str(machine),
        "XDG_STATE_HOME": str(machine / "state"),
        "PATH": f"{machine / '.programs'}:/usr/bin:/bin",
    }
    copied = f"cd {machine}; printf '%s\\n' {token} | {{ {line} --host rack7; }}"
    worker = processes.start(["sh", "-c", copied], environment=elsewhere)

    def joined() -> dict[str, object]:
        found = stack.json("worker", "list", "--json")
        return next((one for one in found if one["host"] == "rack7"), {})

    resources = json.loads(json.dumps(eventually(joined, 30)["resources"]))
    assert resources["cores"] >= 1
    assert resources["memory"] > 2**28
    stack.call("worker", "drain", "rack7", code=3)  # it is another account's
    assert " rack7 " in shell(stack, tmp_path, "\n".join(look_after))
    eventually(lambda: joined()["mode"] == "draining")
    token = stack.text("account", "create", "other", "--role", "operator")
    operator = {"BANYAN_URL": stack.url, "BANYAN_TOKEN": token}
    stack.call("worker", "resume", "rack7", environment=operator)
    eventually(lambda: joined()["mode"] == "active")
    stack.call("worker", "remove", "rack7", environment=operator)
    worker.wait(30)


def test_the_curl_of_the_readme(stack: Stack, tmp_path: Path) -> None:
    """As it stands: the task runs, and its end and output are seen."""
    block = indented(README, "One picture")
    block = block[block.index("TOKEN=$(") :]
    told, hello = shell(stack, tmp_path, block, BANYAN_URL=stack.url).splitlines()
    ended = json.loads(told)
    assert (ended["outcome"], hello) == ("success", "hello")
    assert ended["requested_resources"]["cpu_memory_bytes"] == 2**30


def test_the_curl_of_the_protocol(stack: Stack, tmp_path: Path) -> None:
    token = json.loads(stack.credentials.read_text())["provider"]
    text = read("docs/protocol.md")
    block = text[text.index('    echo "Authorization') : text.index("`where` and `sort` take")]
    running = stack.text("submit", "-q", "--", "sleep", "60")
    eventually(lambda: stack.json("show", "--json", running)["state"] == "running")
    told = shell(stack, tmp_path, block, TOKEN=token, BANYAN_URL=stack.url)
    assert [one["_id"] for one in json.loads(told)["_items"]] == [running]
    stack.call("cancel", "--force", running)


def test_every_command_of_the_readme_is_in_one_of_these_tests() -> None:
    """The headings under which there are commands; scripts/quickstart has a test of its own."""
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    with_commands = [one for one in headings if indented(README, one)]
    assert with_commands == [
        "Two commands", "A second machine", "A sweep in which some tasks fail", "One picture",
    ]  # fmt: skip
    scripts = [line for line in lines_of("Two commands") if line.startswith("scripts/")]
    assert scripts == ["scripts/quickstart", "scripts/test"]


@pytest.mark.timeout(300)
def test_a_sweep_of_which_three_fail(stack: Stack, tmp_path: Path) -> None:
    commands = lines_of("A sweep in which some tasks fail")
    commands = commands[: next(i for i, one in enumerate(commands) if one.startswith("from "))]
    before = "\n".join(commands[:4])
    output = shell(stack, tmp_path, before, strict=False)
    in_order("500 of 500 ended: 497 succeeded, 3 failed", output.splitlines()[-1])
    which, why, *mended = commands[4:]
    assert len(shell(stack, tmp_path, f"{which} -q").splitlines()) == 3
    told = shell(stack, tmp_path, why)
    assert sorted(re.findall(r"^no data for (\d+)$", told, re.MULTILINE)) == ["150", "300", "450"]
    assert re.search(r"outcome +success +500\n", shell(stack, tmp_path, "\n".join(mended)))


def test_the_python_of_the_readme(stack: Stack, tmp_path: Path) -> None:
    lines = lines_of("A sweep in which some tasks fail")
    program = "\n".join(lines[next(i for i, one in enumerate(lines) if one.startswith("from ")) :])
    (tmp_path / "program.py").write_text(program)
    output = shell(stack, tmp_path, "python3 program.py", PYTHONPATH=str(ROOT))
    assert [int(line) for line in output.split()][1:] == [100]
