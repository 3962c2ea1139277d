"""One command many times: `--array`, `--each-line`, `--from-json`.

Called by `banyan submit`. In the words of the command, and wherever else a task has text, {index},
{line}, {item} and the {names} of a JSON object are put in; the environment has the same, so that
nothing must be quoted. A placeholder that nothing fills is refused: it would be taken literally
without a word. {{word}} stands for {word}, and ${word} is the shell's.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import click

from banyan.cli.words import program_name
from banyan.client.graph import ARRAY_TAG
from banyan.client.ids import new_id
from banyan.errors import BanyanError

Task = dict[str, Any]

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?")
MEMBERS_MAX = 1_000_000

# Of each member: its index, what is put into the command, what its environment gets.
_Values = Iterator[tuple[int, Mapping[str, str], Mapping[str, str]]]

_OPTIONS = (
    click.option(
        "--array",
        metavar="RANGE",
        help="One task for each number: 1-100, 0-9:3, 1,4,7. It is {index} in COMMAND, --name, "
        "--cwd, --env, --tag, --label and --queue, and BANYAN_ARRAY_INDEX in the environment.",
    ),
    click.option(
        "--each-line",
        type=click.File(encoding="utf-8"),
        metavar="FILE",
        help="One task for each line that is not empty (-: standard input). It is {line}, and "
        "BANYAN_LINE.",
    ),
    click.option(
        "--from-json",
        type=click.File(encoding="utf-8"),
        metavar="FILE",
        help="One task for each item of a JSON list, or of a file with one JSON value a line. "
        "It is {item}, its members are {name} each, and BANYAN_ITEM.",
    ),
)


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The three options, as parameters of the command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def expanded(
    task: Task, array: str | None, each_line: TextIO | None, from_json: TextIO | None
) -> list[Task] | None:
    """The tasks of an array, each with its id and the tag `array`; None where none is asked for.

    Errors: `usage` for a wrong range or file, or more than one of the three.
    """
    asked: list[_Values] = []
    if array is not None:
        asked.append(_numbers(array))
    if each_line is not None:
        asked.append(_lines(each_line))
    if from_json is not None:
        asked.append(_items(from_json))
    if not asked:
        return None
    if ARRAY_TAG in (task.get("tags") or {}):
        message = f"--tag {ARRAY_TAG}=... says which array a task is of: take another key"
        raise BanyanError("usage", message)
    if len(asked) > 1:
        raise BanyanError("usage", "--array, --each-line and --from-json: give one of them")
    tasks = [_member(task, index, words, env) for index, words, env in asked[0]]
    if not tasks:
        raise BanyanError("usage", "there is nothing in it to make tasks of")
    tag = {ARRAY_TAG: tasks[0]["_id"]}
    return [{**one, "tags": {**one.get("tags", {}), **tag}} for one in tasks]


def _member(task: Task, index: int, words: Mapping[str, str], env: Mapping[str, str]) -> Task:
    words = {"index": str(index), **words}
    command = task["command"]
    if isinstance(command, str):
        quoted = {name: shlex.quote(word) for name, word in words.items()}
        command = _filled(command, quoted, "COMMAND")
    else:
        command = [_filled(word, words, "COMMAND") for word in command]
    texts = {name: _filled(task[name], words, f"--{name}") for name in _TEXTS if task.get(name)}
    if task.get("cwd"):
        texts["cwd"] = _filled_below_here(task["cwd"], words)
    mappings = {name: _all_filled(task[name], words, name) for name in _MAPPINGS if name in task}
    if "name" in texts and task["name"] == program_name(task["command"]):
        texts["name"] = program_name(texts["name"])[:_NAME_LENGTH_MAX] or task["name"]
    own_env = {**mappings.get("env", {}), "BANYAN_ARRAY_INDEX": str(index), **env}
    return {**task, **texts, **mappings, "_id": new_id(), "command": command, "env": own_env}


_NAME_LENGTH_MAX = 256
_TEXTS = ("name", "queue")
_MAPPINGS = {"env": "--env", "tags": "--tag", "labels": "--label"}
# {{word}} first: what stands in it is no placeholder.
_BRACES = re.compile(r"\{\{(\w+)\}\}|(?<!\$)\{(\w+)\}")


def _all_filled(given: Mapping[str, Any], words: Mapping[str, str], field: str) -> dict[str, Any]:
    """The values with the words put in; not in those of this environment, which are as they are."""
    kept = os.environ if field == "env" else {}
    return {
        name: _filled(value, words, f"{_MAPPINGS[field]} {name}")
        if isinstance(value, str) and kept.get(name) != value
        else value
        for name, value in given.items()
    }


def _filled_below_here(directory: str, words: Mapping[str, str]) -> str:
    """Braces in the names of the directory where we are are its own."""
    here = os.getcwd() if directory.startswith(os.getcwd()) else ""
    return here + _filled(directory.removeprefix(here), words, "--cwd")


def _filled(text: str, words: Mapping[str, str], where: str) -> str:
    """Braces around more than one word stay as they are. Errors: `usage` for what nothing fills."""

    def put_in(found: re.Match[str]) -> str:
        literal, name = found[1], found[2]
        if literal:
            return f"{{{literal}}}"
        if name not in words:
            known = ", ".join(f"{{{word}}}" for word in words)
            message = f"nothing fills {{{name}}} in {where}: there is {known}"
            raise BanyanError("usage", f"{message}; for braces that stay, write {{{{{name}}}}}")
        return words[name]

    return _BRACES.sub(put_in, text)


def _numbers(text: str) -> _Values:
    if "%" in text:
        message = f"--array {text}: there is no limit by %; give each task its share with --cores"
        raise BanyanError("usage", message)
    numbers: dict[int, None] = {}
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        step = int(found[3] or 1) if found else 1
        if last < first or step < 1:
            raise BanyanError("usage", f"--array {text!r}: write it as 1-100, 0-9:3 or 1,4,7")
        if (last - first) // step + len(numbers) >= MEMBERS_MAX:
            raise BanyanError("usage", f"--array {text}: at most {MEMBERS_MAX} tasks at once")
        numbers.update(dict.fromkeys(range(first, last + 1, step)))
    return ((number, {}, {}) for number in numbers)


def _lines(file: TextIO) -> _Values:
    for number, line in enumerate(_text(file).split("\n"), 1):
        if line.strip():
            yield number, {"line": line}, {"BANYAN_LINE": line}


def _items(file: TextIO) -> _Values:
    for number, item in enumerate(_json_items(_text(file), file.name), 1):
        whole = _word(item)
        members = item if isinstance(item, dict) else {}
        words = {"item": whole, **{name: _word(value) for name, value in members.items()}}
        yield number, words, {"BANYAN_ITEM": whole}


def _json_items(text: str, name: str) -> list[Any]:
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as problem:
        message = f"--from-json {name}: a JSON list, or one JSON value a line, please: {problem}"
        raise BanyanError("usage", message) from None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError as problem:
        raise BanyanError("usage", f"{file.name} is no UTF-8 text: {problem}") from None
