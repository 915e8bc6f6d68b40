"""A kind of data set, and what it is asked for."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

HELD_OUT = 0.1  # of the images, where a source has no test split of its own
Size = tuple[int, int]  # (height, width)


class DataError(ValueError):
    """A data set cannot be found or read; the message says what was wrong."""


class Request(NamedTuple):
    """What a source is asked for; see `hfvae.data.load_images`."""

    dataset: str
    split: str
    size: Size | None = None
    channels: int | None = None
    image_column: str | None = None
    data_dir: str | Path | None = None
    streaming: bool = False
    max_samples: int | None = None


class Source(ABC):
    """A kind of data set. `names` are those that only it answers to, in lower case."""

    names: tuple[str, ...] = ()
    streams = False  # whether images can be decoded as they arrive

    def has(self, dataset: str) -> bool:
        """Whether a name stands for such a set; DataError if it does, and cannot be had."""
        return dataset.lower() in self.names

    @abstractmethod
    def records(self, asked: Request) -> Any:
        """The images of a split, as `hfvae.data.records.Records`."""
