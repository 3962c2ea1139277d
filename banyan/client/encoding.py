"""A value as the JSON that a request carries, or a refusal that says what cannot be sent.

Called for each new task and for each body; so what cannot be sent is refused in the same words
by whoever looks first.
"""

import json
from typing import Any

from banyan.client.byte_words import first_that_is_no_text
from banyan.errors import BanyanError


def encoded(value: Any) -> bytes:
    """Its JSON, in UTF-8. Errors: `invalid` for what has none."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return text.encode()
    except UnicodeEncodeError:
        raise no_text(value) from None
    except (TypeError, ValueError, RecursionError) as exception:
        raise BanyanError("invalid", f"this cannot be sent as JSON: {exception}") from None


def no_text(value: Any) -> BanyanError:
    """The refusal of what holds a text that is no UTF-8."""
    message = f"'{first_that_is_no_text(value)}' is no UTF-8 text, and cannot be sent"
    return BanyanError("invalid", message)
