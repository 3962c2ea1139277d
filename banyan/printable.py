"""Text that others wrote, as it may be shown: what would act on a terminal is written out.

Control characters, what turns the direction of writing, separators of lines. Everybody may import
this file; it imports nothing.
"""


def harmless(text: str) -> str:
    """The text on one line; what is no visible character and no blank as Python writes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless_lines(text: str) -> str:
    """As `harmless`, with its lines as they are."""
    return "\n".join(map(harmless, text.split("\n")))
