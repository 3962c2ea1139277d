"""One command many times: `--array`, `--each-line`, `--from-json`; `--at-most` at one time.

Called by `banyan submit`. In the words of the command, and wherever else a task has text, {index},
{line}, {item} and the {names} of a JSON object are put in; the environment has the same, so that
nothing must be quoted. A placeholder that nothing fills is refused: it would be taken literally
without a word. {{word}} stands for {word}, and ${word} is the shell's.
"""

import codecs
import itertools
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import click

from banyan.cli.sections import in_sections
from banyan.cli.words import program_name
from banyan.cli.working import Working
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
        "--cwd, --env, --tag, --label and --queue, and BANYAN_ARRAY_INDEX in the environment. "
        "1-100%4: 4 at one time.",
    ),
    click.option(
        "--each-line",
        # A byte order mark is no part of the first line; names of files are bytes.
        type=click.File(encoding="utf-8-sig", errors="surrogateescape"),
        metavar="FILE",
        help="One task for each line that is not empty (-: standard input). It is {line}, and "
        "BANYAN_LINE.",
    ),
    click.option(
        "--from-json",
        type=click.File(encoding="utf-8-sig"),
        metavar="FILE",
        help="One task for each item of a JSON list, or of a file with one JSON value a line. "
        "It is {item}, its members are {name} each, and BANYAN_ITEM.",
    ),
    click.option(
        "--at-most",
        type=click.IntRange(min=1),
        metavar="N",
        help="So many of them at one time, in N lanes: one begins when the one before it in its "
        "lane has ended.",
    ),
)


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, as parameters of the command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    in_sections(command, {"Many at once": ("array", "each_line", "from_json", "at_most")})
    return command


def expanded(
    task: Task,
    array: str | None,
    each_line: TextIO | None,
    from_json: TextIO | None,
    at_most: int | None = None,
) -> list[Task] | None:
    """The tasks of an array, each with its id and the tag `array`; None where none is asked for.

    at_most: so many at one time; an array says it as Slurm does, too: 1-100%4.
    Errors: `usage` for a wrong range or file, or more than one of the three.
    """
    asked: list[_Values] = []
    if array is not None:
        array, at_most = _lanes_of(array, at_most)
        asked.append(_numbers(array))
    if each_line is not None:
        asked.append(_lines(each_line))
    if from_json is not None:
        asked.append(_items(from_json))
    if not asked:
        if at_most is not None:
            raise BanyanError(
                "usage", "--at-most: of what? Give --array, --each-line or --from-json"
            )
        return None
    if ARRAY_TAG in (task.get("tags") or {}):
        message = f"--tag {ARRAY_TAG}=... says which array a task is of: take another key"
        raise BanyanError("usage", message)
    if len(asked) > 1:
        raise BanyanError("usage", "--array, --each-line and --from-json: give one of them")
    tasks = _members(task, asked[0])
    key = task.get("dedupe_key")
    # The same sweep again has to be the same in all its fields; so the key names the array.
    tag = {ARRAY_TAG: key or tasks[0]["_id"]}
    many = [{**one, "tags": {**one.get("tags", {}), **tag}} for one in tasks]
    return many if at_most is None else _in_lanes(many, at_most)


def _members(task: Task, values: _Values) -> list[Task]:
    first = next(values, None)  # reads the file, which a person may be typing
    if first is None:
        raise BanyanError("usage", "there is nothing in it to make tasks of")
    made: list[Task] = []
    with Working("making the tasks") as working:
        for index, words, env in itertools.chain([first], values):
            made.append(_member(task, index, words, env))
            working(len(made))
    return made


def _lanes_of(array: str, at_most: int | None) -> tuple[str, int | None]:
    """(the numbers, how many at one time) of 1-100%4."""
    numbers, percent, most = array.partition("%")
    if not percent:
        return array, at_most
    if not re.fullmatch(r"[1-9][0-9]{0,8}", most) or at_most is not None:
        message = f"--array {array!r}: write it as 1-100%4, for 4 at one time"
        raise BanyanError("usage", f"{message}, or with --at-most 4")
    return numbers, int(most)


def _in_lanes(tasks: list[Task], count: int) -> list[Task]:
    """So many lanes: each task begins when the one before it in its lane has ended.

    The server needs to count nothing, and a claim looks at no more than it does otherwise.
    """
    if "dedupe_key" in tasks[0]:
        message = "--at-most has each task wait for another, which differs every time"
        raise BanyanError("usage", f"{message}: leave it or --dedupe-key out")
    for task, before in zip(tasks[count:], tasks, strict=False):
        task["after_any"] = [*(task.get("after_any") or ()), before["_id"]]
    return tasks


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
    if "dedupe_key" in task:
        texts["dedupe_key"] = f"{task['dedupe_key']}:{index}"
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
    numbers: dict[int, None] = {}
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        step = int(found[3] or 1) if found else 1
        if last < first or step < 1:
            raise BanyanError("usage", f"--array {text!r}: write it as 1-100, 0-9:3 or 1,4,7")
        if (last - first) // step + len(numbers) >= MEMBERS_MAX:
            raise BanyanError("usage", f"--array {text}: at most {MEMBERS_MAX:,} tasks at once")
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
        text = file.read()
    except UnicodeDecodeError as problem:
        text, why = _bytes_kept(problem.object[:2]), str(problem)
    else:
        why = ""
    if text[:2] in _MARKS_OF_UTF_16:
        why = "it is UTF-16; save it as UTF-8"
    if why:
        raise BanyanError("usage", f"{file.name} is no UTF-8 text: {why}")
    return text


def _bytes_kept(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_MARKS_OF_UTF_16 = (_bytes_kept(codecs.BOM_UTF16_LE), _bytes_kept(codecs.BOM_UTF16_BE))
