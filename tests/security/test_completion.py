"""What others named is offered at the Tab key only where a shell takes it for what it is.

Real shells at a real terminal; in place of the server stands what a malicious one, or malicious
users of an honest one, would tell.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from banyan.cli import completing
from banyan.cli.main import banyan
from banyan.client.api import Client
from tests.harness import eventually
from tests.security.terminals import SHELLS, Terminal

HOSTILE = [
    "ra$(touch${IFS}BROKEN)", "ra`touch${IFS}BROKEN`", "ra;touch${IFS}BROKEN", "ra|touch BROKEN",
    "ra\ntouch BROKEN\n", "ra&touch${IFS}BROKEN", "ra'x", 'ra"x', "ra\\x", "ra!!", "ra*", "ra?",
    "ra[a-z]", "ra{a,b}", "ra~", "~ra", "ra x", "ra\tx", "ra>BROKEN", "ra<x", "ra#x", "ra^x",
    "ra,plain", "ra%x", "ra\x1b]0;x\x07", "ra\u202ex", "ra\u00e9", "-ra", "--url=http://ra", "=ra",
    "ra\nplain\nra$(touch${IFS}BROKEN)\n_",
]  # fmt: skip
# These alone are what could be meant, so a shell puts them into the line by itself.
ATTACKS = [HOSTILE[0], HOSTILE[1], HOSTILE[4], "--help", HOSTILE[-1]]
HARMLESS = ["rack7", "rack-7.example.org", "ra_7:2", "ra+x/y=z@w"]

# What is asked, and told: the client of the command line, replaced.
BANYAN = """#!{python}
import sys
from types import SimpleNamespace as Found
import banyan.client.api
from banyan.cli import completing

NAMES = {names!r}


class Client:
    def __init__(self, *given, **more): pass
    def __enter__(self): return self
    def __exit__(self, *how): pass
    def find(self, where, **how):
        return [dict(_id="%024x" % at, name=name, state="available")
                for at, name in enumerate(NAMES)]
    def workers(self): return [dict(_id="f" * 24, host=name, mode=NAMES[0]) for name in NAMES]
    def statistics(self, **how): return dict(by_queue=dict.fromkeys(NAMES, 1))
    def worker_statistics(self): return dict(by_queue={{}})


banyan.client.api.Client = Client
completing.PATIENCE_SECONDS = 30
if "_BANYAN_COMPLETE" not in __import__("os").environ and sys.argv[1] != "completion":
    print("GIVEN", sys.argv[1:])
    sys.exit()
from banyan.cli.main import main
main()
"""


SOURCED = {
    "bash": "source <(banyan completion bash)",
    "zsh": "autoload -U compinit; compinit -u; source <(banyan completion zsh)",
    "fish": "banyan completion fish | source",
}


@pytest.fixture(params=sorted(SHELLS))
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    if not shutil.which(request.param):
        pytest.skip(f"there is no {request.param} here")
    own = Terminal(SHELLS[request.param], tmp_path)
    program(tmp_path, ["rack7"])
    own.type(f"{SOURCED[request.param]}; echo rea''dy\n")
    try:
        eventually(lambda: own.shows("ready"), 60)
        yield own
    finally:
        own.close()


def program(home: Path, names: list[str]) -> None:
    (home / "banyan.new").write_text(BANYAN.format(python=sys.executable, names=names))
    (home / "banyan.new").chmod(0o755)
    (home / "banyan.new").replace(home / "banyan")


def given(terminal: Terminal, line: str) -> str:
    """What the command is given where somebody types the line, Tab and Enter."""
    terminal.shown = ""
    terminal.type(f"banyan {line}\t\n")
    eventually(lambda: terminal.shows("GIVEN ") and "]" in terminal.shown.split("GIVEN ")[1], 60)
    return terminal.shown.split("GIVEN ")[1].split("]")[0] + "]"


@pytest.mark.timeout(300)
def test_a_shell_runs_and_gets_nothing_of_a_hostile_name(terminal: Terminal, tmp_path: Path):
    assert given(terminal, "worker resume ra") == "['worker', 'resume', 'rack7']"  # it does offer
    for name in ATTACKS:
        program(tmp_path, [name])
        begun = name[:2]
        assert given(terminal, f"worker resume {begun}") == f"['worker', 'resume', '{begun}']"
        assert given(terminal, "show @ra") == "['show', '@ra']"
    assert not (tmp_path / "BROKEN").exists()


def test_of_what_others_named_only_plain_words_are_offered(monkeypatch: pytest.MonkeyPatch):
    """As the scripts of the shells read it: line by line."""
    names = HOSTILE + HARMLESS
    tasks = [{"_id": f"{at:024x}", "name": one, "state": one} for at, one in enumerate(names)]
    told = {
        "find": lambda *_, **__: tasks,
        "workers": lambda _: [{"_id": "f" * 24, "host": one, "mode": one} for one in names],
        "statistics": lambda *_, **__: {"by_queue": dict.fromkeys(names, 1)},
        "worker_statistics": lambda _: {"by_queue": {}},
    }
    for name, answer in told.items():
        monkeypatch.setattr(Client, name, answer)
    monkeypatch.setattr(completing, "PATIENCE_SECONDS", 60.0)
    known = {"last", "f" * 24, *HARMLESS, *(f"@{one}" for one in HARMLESS)}
    known |= {task["_id"] for task in tasks}
    for shell in (BashComplete, ZshComplete, FishComplete):
        completion = shell(banyan, {}, "banyan", "_BANYAN_COMPLETE")
        access = ["--url", "http://127.0.0.1:1", "--token", "t"]
        for words, begun in (
            (["worker", "resume"], ""), (["worker", "resume"], "ra"), (["show"], "@"),
            (["show"], ""), (["ls", "--queue"], "r"),
        ):  # fmt: skip
            named = words[-1:] if words[-1].startswith("--") else []
            line = [*words[: len(words) - len(named)], *access, *named]
            found = completion.get_completions(line, begun)
            assert {one.value for one in found} <= known
            assert {one.value for one in found} & {*HARMLESS, f"@{HARMLESS[0]}", "last"}
            lines = [completion.format_completion(one) for one in found]
            expected = 2 if shell is ZshComplete else 0
            assert [line.count("\n") for line in lines] == [expected] * len(lines)
            assert all(one.replace("\n", "").replace("\t", "").isprintable() for one in lines)
