"""Where a worker's own token comes from.

Called once, when a worker starts. The token stays in the agent's memory: it must never reach
the launcher, a task or a log.
"""

import json
from pathlib import Path

from banyan import ownership
from banyan.errors import BanyanError


def read_token(path: Path) -> str:
    """The worker's token from a file that holds it alone, or from a credentials file.

    Errors: BanyanError `usage`.
    """
    try:
        ownership.check_links(path)
        text = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise BanyanError("usage", f"the token file {path} cannot be read: {error}") from None
    if text.startswith("{"):
        try:
            text = json.loads(text)["worker"]
        except (ValueError, KeyError):
            raise BanyanError("usage", f"{path} holds no token for a worker") from None
    if not text:
        raise BanyanError("usage", f"{path} is empty")
    return text
