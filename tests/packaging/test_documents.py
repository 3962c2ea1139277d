"""The documents: links lead somewhere, and every command is one that the command line has."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from banyan.cli.main import banyan
from banyan.config import knobs
from tests.harness.processes import ROOT

PAGES = ("README.md", "CHANGELOG.md", "SECURITY.md")
DOCUMENTS = [*(ROOT / page for page in PAGES), *sorted((ROOT / "docs").rglob("*.md"))]
# What stands for something of the reader's own.
MEANT = {"ID": "6740a1b2c3d4e5f601234567", "HOST": "rack7", "URL": "http://head:5100"}
FILES = ("FILE", "head.pem", "head.key", "tasks.jsonl", "params.txt", "lines.txt", "grid.json")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#\s]*)(#[^)\s]+)?\)")


def anchors(text: str) -> set[str]:
    """The headings, as a page that is made of them names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    text = document.read_text()
    for target, anchor in _LINK.findall(re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)):
        if target.startswith("http"):
            continue
        found = (document.parent / target).resolve() if target else document
        assert found.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(found.read_text()), f"{target}{anchor} is not there"


def commands(text: str) -> Iterator[list[str]]:
    """The words of what begins with `banyan`: in code between words, and on lines of code."""
    fenced = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    scripts = re.compile(r"^cat > .*?^END$", re.MULTILINE | re.DOTALL)  # not ours to read
    lines = [line for block in fenced.findall(text) for line in scripts.sub("", block).splitlines()]
    lines += re.findall(r"^    (.*)$", text, re.MULTILINE)
    lines += re.findall(r"`(banyan [^`]+)`", " ".join(fenced.sub("", text).splitlines()))
    for line in lines:
        if re.match(r"(\w+=\$\(|\(umask 077; )?banyan ", line):
            yield until_an_operator(line[line.index("banyan ") + len("banyan ") :])


def until_an_operator(line: str) -> list[str]:
    """The words of one command; what the shell would put in stands for an id."""
    line = re.sub(r"\$\([^()]*\)|\$\w+|<[^>]+>", MEANT["ID"], line)
    words = shlex.shlex(line, posix=True, punctuation_chars="();&|<>")
    words.whitespace_split = True
    found = list(itertools.takewhile(lambda word: word[0] not in "();&|<>", filter(None, words)))
    return [MEANT.get(word, word) for word in found if word != "…"]


def understood(words: list[str]) -> None:
    """Errors: UsageError where the command line has no such command or option."""
    with banyan.make_context("banyan", words) as group:
        name, command, rest = banyan.resolve_command(group, words)
        assert command is not None
        context = command.make_context(name, rest, parent=group)
        if isinstance(command, click.Group) and context.protected_args:
            name, below, rest = command.resolve_command(
                context, [*context.protected_args, *context.args]
            )
            assert below is not None
            below.make_context(name, rest, parent=context)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:.*protected_args")
def test_every_command_is_one(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    for words in commands(document.read_text()):
        try:
            understood(words)
        except (click.exceptions.Exit, click.MissingParameter):
            continue  # --help, or the verb alone, as a name for itself
        except click.UsageError as problem:
            if not problem.message.endswith("requires an argument."):  # an option by its name
                pytest.fail(f"banyan {shlex.join(words)}: {problem.message}")


def test_every_variable_of_the_documents_is_one():
    known = {f"BANYAN_{name}" for name in vars(knobs())}
    code = "".join(
        path.read_text() for folder in ("banyan", "tests", "scripts")
        for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in ("", ".py")
        and "__pycache__" not in path.parts
    )  # fmt: skip
    for document in DOCUMENTS:
        for name in set(re.findall(r"\bBANYAN_[A-Z][A-Z_]*[A-Z]\b", document.read_text())):
            of_a_task = name.startswith("BANYAN_SECRET_")
            assert of_a_task or name in known or f'"{name}"' in code, (document, name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_is_there(document: Path):
    """With its place: `tests/security/test_x.py::test_y`, a file alone too."""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", document.read_text()):
        assert (ROOT / file).is_file(), f"{file} is not there"
        assert not name or f"\ndef {name}(" in (ROOT / file).read_text(), f"no {name} in {file}"


def test_each_finding_has_a_test():
    _, table = (ROOT / "docs" / "security.md").read_text().split("## What a review found")
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [line.split("|") for line in lines if not line.startswith("| finding |")]
    assert len(rows) > 5
    for row in rows:
        assert len(row) == 6, row
        assert "::test_" in row[4], row[1]
