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
