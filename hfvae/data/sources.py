"""The kinds of data sets, and which of them a name stands for."""

from ..errors import expand, printable
from .avatars import AvatarsSource
from .base import DataError, Source
from .folders import Folder, Idx
from .sprites import SpritesSource
from .tables import HubSet, ParquetFile
from .torchvision import Torchvision

# The first that has a name has it: `./avatars` is a folder, whatever else has its name.
SOURCES: tuple[Source, ...] = (
    SpritesSource(), AvatarsSource(), Idx(), Folder(), ParquetFile(), Torchvision(), HubSet(),
)  # fmt: skip


def find_source(dataset: str) -> Source:
    """The kind of a data set, or DataError if there can be none, before anything is read."""
    for source in SOURCES:
        if source.has(dataset):
            return source
    names = ", ".join(name for source in SOURCES for name in source.names)
    raise DataError(
        f"there is no folder or file {dataset}, and no data set of that name; known names: "
        f"{names}; a Hub data set is owner/name"
    )


def dataset_name(dataset: str) -> str:
    """A short name for folders and cards: the last part of a path or id."""
    path = expand(dataset)
    return printable(path.stem if path.is_file() else path.resolve().name).replace(":", "-")
