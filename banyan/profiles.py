"""Which server, and with which token: flags > `BANYAN_URL`, `BANYAN_TOKEN` > a profile.

Inside a running task its own token (`BANYAN_TASK_TOKEN`) stands between the last two; it goes by
the server's unix socket where the worker names that (`BANYAN_SOCKET`).
Profiles are tables of one TOML file (`BANYAN_CONFIG`, else the XDG place), written by
`banyan up` and `banyan login`, read by every command. A profile's token must never go to
another server than the profile's own.
"""

import itertools
import json
import os
import re
import shlex
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from banyan import ownership, stacks
from banyan.addresses import socket_in
from banyan.config import data_directory, user_directory
from banyan.errors import BanyanError

LOCAL = "local"  # the profile that `banyan up` writes
TASK = "task"
ROLES = ("provider", "worker", "operator", "admin")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOCAL = re.compile(rf"{LOCAL}(-[0-9]+)?")
_NEXT_STEP = "start one here with 'banyan up', or name one with 'banyan login URL'"


@dataclass(frozen=True, slots=True)
class Profile:
    """One server as its user knows it. `credentials` is a file; `token` stands by itself.

    tls_ca: a file with whom to trust as this server.
    socket: the path of its unix socket, where it is on this machine: clients use that and
        nothing else, as whoever takes a port can pass for the server.
    """

    url: str
    credentials: str = ""
    token: str = ""
    tls_ca: str = ""
    socket: str = ""


@dataclass(frozen=True, slots=True)
class Profiles:
    """The whole file."""

    profiles: Mapping[str, Profile]
    default: str = ""

    def with_default(self, name: str, profile: Profile) -> "Profiles":
        """The same with one profile set, which is the default."""
        return Profiles({**self.profiles, name: profile}, name)


@dataclass(frozen=True, slots=True)
class Access:
    """What a Transport needs. `socket`: by which unix socket; empty: by the URL."""

    url: str
    token: str
    socket: str = ""


class Credentials(NamedTuple):
    """What a worker is started with: the URL is for its tasks, the socket for itself."""

    url: str
    file: Path
    socket: str = ""


def path() -> Path:
    """The file of the profiles, whether it is there or not. Errors: as of `user_directory`."""
    named = os.environ.get("BANYAN_CONFIG")
    if named:
        return Path(named)
    return user_directory("XDG_CONFIG_HOME", ".config", "BANYAN_CONFIG=FILE") / "config.toml"


def find_access(
    role: str = "provider",
    url: str | None = None,
    token: str | None = None,
    profile: str | None = None,
) -> Access:
    """The server and the token for a command that needs `role`.

    role: one of ROLES, or TASK for what a running task says of itself.
    url, token, profile: what was said on the command line or to `Client(...)`.
    Errors: `usage` when there is no server to be found, `unauthenticated` when there is no
    token for it; both name the next step.
    """
    if role == TASK:
        return _access_of_task(url, token)
    if profile is None:
        url = url or os.environ.get("BANYAN_URL")
        token = token or os.environ.get("BANYAN_TOKEN")
        own = None if token else _token_of_task(url)
        if url and own:
            return Access(url, own.strip(), os.environ.get("BANYAN_SOCKET", ""))
    if url and token:
        return Access(url, token.strip())
    chosen = _chosen(load(), url, profile or os.environ.get("BANYAN_PROFILE"))
    if chosen is None:
        if url:
            message = f"no token for {url}: set BANYAN_TOKEN, or log in with 'banyan login {url}'"
            raise BanyanError("unauthenticated", message)
        raise BanyanError("usage", f"no server is known: {_NEXT_STEP}")
    return Access(chosen.url, (token or _token(chosen, role)).strip(), chosen.socket)


def find_tls_ca(url: str, said: str | None = None, profile: str | None = None) -> str:
    """The file that says whom to trust as this server; empty: the machine's authorities.

    said: on the command line, or to `Client(...)`; then `BANYAN_TLS_CA`, then the profile.
    """
    named = said or os.environ.get("BANYAN_TLS_CA", "")
    if named or not url.startswith("https:"):
        return named
    chosen = _chosen(load(), url, profile or os.environ.get("BANYAN_PROFILE"))
    if chosen is None or not chosen.tls_ca:
        return ""
    try:
        ownership.check_file(Path(chosen.tls_ca))
    except OSError as problem:
        raise BanyanError("usage", f"--tls-ca {chosen.tls_ca}: {problem}") from None
    return chosen.tls_ca


def _access_of_task(url: str | None, token: str | None) -> Access:
    named = url or token
    url = url or os.environ.get("BANYAN_URL")
    token = token or os.environ.get("BANYAN_TASK_TOKEN")
    if not (url and token and os.environ.get("BANYAN_TASK_ID")):
        message = "this is for inside a running task, which has BANYAN_TASK_ID in its environment"
        raise BanyanError("usage", message)
    return Access(url, token, "" if named else os.environ.get("BANYAN_SOCKET", ""))


def _token_of_task(url: str | None) -> str | None:
    """In a running task: the task's own token, unless another server or profile is named."""
    named = os.environ.get("BANYAN_PROFILE")
    own = os.environ.get("BANYAN_URL")
    if named or not url or not own or not _same_server(url, own):
        return None
    return os.environ.get("BANYAN_TASK_TOKEN")


def find_credentials(
    url: str | None = None, file: Path | None = None, profile: str | None = None
) -> Credentials:
    """The server, and a file with a token for it: what a worker is started with.

    Errors: `usage` where the one or the other is not to be found.
    """
    url = url or (None if profile else os.environ.get("BANYAN_URL"))
    if url and file:
        return Credentials(url, file)
    chosen = _chosen(load(), url, profile or os.environ.get("BANYAN_PROFILE"))
    if chosen is None:
        raise BanyanError("usage", f"a worker needs --url and --token-file, or: {_NEXT_STEP}")
    if file is None and not chosen.credentials:
        raise BanyanError("usage", f"give the worker's token for {chosen.url} with --token-file")
    return Credentials(chosen.url, file or _believed(chosen.credentials), chosen.socket)


def _believed(file: str) -> Path:
    try:
        ownership.check_file(Path(file))
    except OSError:
        message = f"there is no file {file}: give one with --token-file"
        raise BanyanError("usage", message) from None
    return Path(file)


def load() -> Profiles:
    """The file as it is; empty when there is none, nor a home directory for one.

    Errors: `usage` when it cannot be read, or others could have written it: it says which
    file's token goes to which server.
    """
    try:
        found = path()
    except BanyanError:
        return Profiles({})
    try:
        if not _is_there(found):
            return Profiles({})
        ownership.check_own(found)
        content = tomllib.loads(found.read_text("utf-8-sig"))
        tables = content.get("profile", {})
        profiles = {name: _profile(name, table) for name, table in tables.items()}
        return Profiles(profiles, str(content.get("default_profile", "")))
    except (OSError, ValueError, AttributeError) as problem:
        raise BanyanError("usage", f"{found} cannot be read: {problem}") from None


def _is_there(file: Path) -> bool:
    """Whether anything is: one that is not there, wherever it would be, says nothing."""
    try:
        file.stat()
    except FileNotFoundError:
        return False
    return True


def save(profiles: Profiles) -> None:
    """Replaces the file, mode 0600, as a whole or not at all; an equal one is left alone."""
    target = ownership.place_of(path())  # a link of one's own into dotfiles stays one
    if target.exists() and load() == profiles and stat.S_IMODE(target.stat().st_mode) == 0o600:
        return
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".config-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_toml(profiles))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def remember_local(url: str, credentials: Path, tls_ca: str = "", socket: str = "") -> None:
    """What `banyan up` keeps of the server it started; a default that the user chose stays.

    Another stack of this user's that still runs is kept beside it, as `local-2` and so on.
    """
    stored = load()
    mine = Profile(url, credentials=str(credentials.absolute()), tls_ca=tls_ca, socket=socket)
    others = [one for one in _locals(stored).values() if one.credentials != mine.credentials]
    save(_with_locals(stored, [mine, *filter(is_running, others)]))


def forget_local(credentials: Path) -> None:
    """At the end of that stack: another one that still runs is the one that commands find."""
    stored, own = load(), str(credentials.absolute())
    others = [one for one in _locals(stored).values() if one.credentials != own]
    running = list(filter(is_running, others))
    if running:
        save(_with_locals(stored, running))


def local_data() -> Path:
    """The data directory of the profile that `banyan up` writes; else the usual one."""
    known = load().profiles.get(LOCAL)
    if known and known.credentials and "BANYAN_DATA" not in os.environ:
        return Path(known.credentials).parent
    return data_directory()


def is_running(profile: Profile) -> bool:
    """Whether it is of a stack on this machine that has not ended."""
    return bool(profile.credentials) and stacks.runs(Path(profile.credentials).parent)


def told_of_ended(url: str) -> str:
    """For who asks a stack on this machine that has ended: that, and which ones run; or empty."""
    stored = load().profiles
    for name, profile in stored.items():
        if _is_of(profile, url) and profile.credentials and not is_running(profile):
            home = Path(profile.credentials).parent
            message = f"no server answers at {url}: that of {home} (profile {name}) has ended"
            start = f"banyan up --data {shlex.quote(str(home))}"
            step = f"start it with '{start}'{_told_of_running(stored)}"
            return f"{message}; {step}"
    return ""


def _told_of_running(stored: Mapping[str, Profile]) -> str:
    """Which stacks run here, as the end of a piece of advice."""
    running = [f"--profile {name} ({one.url})" for name, one in stored.items() if is_running(one)]
    return f", or take one that runs: {', '.join(running)}" if running else ""


def _locals(stored: Profiles) -> dict[str, Profile]:
    """Those that `banyan up` has written, the newest first."""
    known = stored.profiles.items()
    return {name: one for name, one in known if _LOCAL.fullmatch(name) and not one.token}


def _with_locals(stored: Profiles, stacks_here: list[Profile]) -> Profiles:
    others = {n: one for n, one in stored.profiles.items() if n not in _locals(stored)}
    names = (f"{LOCAL}-{number}" for number in itertools.count(2))
    free = (name for name in names if name not in others)
    found = {**others, LOCAL: stacks_here[0], **dict(zip(free, stacks_here[1:], strict=False))}
    return Profiles(found, stored.default if stored.default in others else LOCAL)


def remember_login(name: str, profile: Profile) -> None:
    """What `banyan login` keeps; it becomes the default."""
    if not _NAME.fullmatch(name):
        raise BanyanError("usage", "the name of a profile is made of letters, digits, _ and -")
    for file in filter(None, (profile.credentials, profile.tls_ca)):
        ownership.check_file(Path(file))
    save(load().with_default(name, profile))


def read_token(text: str, role: str, origin: str) -> str:
    """The token in the text of a file: it alone, or that of `role` in a credentials file.

    origin: what to call the file in an error.
    """
    text = text.removeprefix("\ufeff").strip()  # the mark of an editor
    if not text.startswith("{"):
        return text
    try:
        tokens = json.loads(text)
    except ValueError:
        raise BanyanError("unauthenticated", f"{origin} is neither a token nor JSON") from None
    found = tokens.get(role)
    if not isinstance(found, str):
        known = ", ".join(sorted(tokens)) or "none"
        message = f"{origin} has no token for the role {role} (it has: {known})"
        raise BanyanError("unauthenticated", f"{message}; give one with BANYAN_TOKEN")
    return found


def _chosen(stored: Profiles, url: str | None, name: str | None) -> Profile | None:
    if name and name not in stored.profiles:
        known = ", ".join(sorted(stored.profiles)) or "none"
        raise BanyanError("usage", f"there is no profile {name!r} in {path()} (known: {known})")
    first = stored.profiles.get(name or stored.default)
    if url is None:
        return first
    candidates = [first] if name else [first, *stored.profiles.values()]
    return next((one for one in candidates if one and _is_of(one, url)), None)


def _is_of(profile: Profile, url: str) -> bool:
    path = socket_in(url)
    return _same_server(profile.url, url) or bool(path and path == profile.socket)


def _same_server(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _token(profile: Profile, role: str) -> str:
    if profile.token:
        return profile.token
    try:
        text = ownership.read_believed(Path(profile.credentials))
    except (OSError, ValueError) as problem:
        said = getattr(problem, "strerror", None) or "it is no text"
        message = f"no token for {profile.url}: {profile.credentials}: {said}"
        step = f"{_NEXT_STEP}{_told_of_running(load().profiles)}"
        raise BanyanError("unauthenticated", f"{message}; {step}") from None
    return read_token(text, role, profile.credentials)


def _profile(name: str, table: Mapping[str, object]) -> Profile:
    if not isinstance(table.get("url"), str):
        raise ValueError(f"profile {name} has no url")
    unknown = table.keys() - {"url", "credentials", "token", "tls_ca", "socket"}
    if unknown:
        raise ValueError(f"profile {name}: {sorted(unknown)[0]} is no setting of a profile")
    return Profile(**{key: str(value) for key, value in table.items()})


def _toml(profiles: Profiles) -> str:
    lines = [f"default_profile = {_quoted(profiles.default)}"] if profiles.default else []
    for name, profile in profiles.profiles.items():
        key = name if _NAME.fullmatch(name) else _quoted(name)
        lines += ["", f"[profile.{key}]", f"url = {_quoted(profile.url)}"]
        if profile.credentials:
            lines.append(f"credentials = {_quoted(profile.credentials)}")
        if profile.token:
            lines.append(f"token = {_quoted(profile.token)}")
        if profile.tls_ca:
            lines.append(f"tls_ca = {_quoted(profile.tls_ca)}")
        if profile.socket:
            lines.append(f"socket = {_quoted(profile.socket)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
