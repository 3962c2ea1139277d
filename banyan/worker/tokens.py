"""Where a worker's own token comes from.

Called once, when a worker starts. The token stays in the agent's memory: it must never reach
the launcher, a task or a log.
"""

import json
import logging
from pathlib import Path

from banyan import ownership
from banyan.errors import BanyanError

_log = logging.getLogger(__name__)


def read_token(path: Path) -> str:
    """The worker's token from a file that holds it alone, or from a credentials file.

    Warns where others can read it. Errors: BanyanError `usage`.
    """
    try:
        ownership.check_links(path)
        text = path.read_text("utf-8-sig").strip()
        told = ownership.told_of_readers(path)
    except (OSError, ValueError) as error:
        raise BanyanError("usage", f"the token file {path} cannot be read: {error}") from None
    if told:
        _log.warning("%s", told)
    if text.startswith("{"):
        try:
            text = json.loads(text)["worker"]
        except (ValueError, KeyError):
            raise BanyanError("usage", f"{path} holds no token for a worker") from None
    if not text:
        raise BanyanError("usage", f"{path} is empty")
    return text
