"""The error that loading and publishing raise, and what several places say."""

import os
from pathlib import Path

NEEDS_TRAIN = 'needs more packages: pip install -e ".[train]"'


class HubError(OSError):
    """A model cannot be loaded, saved or published; the message says why and what to do."""


def printable(text: object) -> str:
    """In UTF-8, which a file's name need not be."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def expand(path: str | Path) -> Path:
    """A path with ~ for the home folder; Path.expanduser fails where there is no such user."""
    return Path(os.path.expanduser(path))


def quoted(text: object) -> str:
    """What a file or a server says, as a part of one line for a terminal or a page.

    At most 200 characters, all printable: the rest is written as Python does, ESC as \\x1b.
    """
    line = " ".join(str(text).split())[:200]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)[:200]
