"""Training images: whatever they come from, one uint8 tensor of decoded pixels.

In memory when it is small, mapped from a file on disk when it is large.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import cache
from .base import HELD_OUT, DataError, Request, Size
from .drawn import Drawn
from .records import Records
from .sources import dataset_name, find_source


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one split.

    Attributes:
        name: what the user calls it.
        split: "train" or "test".
        pixels: uint8 (N, C, H, W), in memory or mapped from a file.
        factors: int64 (N, K), where the images have known factors.
        skipped: what could not be read, as "name: reason".
        note: where the decoded images are kept, in words.
        mapped: the file that the pixels are in, if they are in one.
        drawn: draws any combination of the factors.
        licence, credit: for the card, where they are known.
    """

    name: str
    split: str
    pixels: Tensor
    factors: Tensor | None = None
    skipped: list[str] = field(default_factory=list)
    note: str = ""
    mapped: Any = None
    drawn: Drawn | None = None
    licence: str | None = None
    credit: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def fingerprint(self) -> str:
        """SHA-256 of the pixels: of all of them, or of evenly spaced ones of a set in a file."""
        every = max(1, math.ceil(self.pixels.nbytes / cache.IN_MEMORY))
        return cache.checksum(self.pixels[::every].cpu().numpy(), self.mapped, len(self))

    def first(self, n: int) -> "ImageSet":
        """Its first images, at most n."""
        factors = None if self.factors is None else self.factors[:n]
        return dataclasses.replace(self, pixels=self.pixels[:n], factors=factors)

    def resident(self, device: torch.device) -> "ImageSet":
        """The same images in the memory of a GPU that has room for them four times over."""
        if device.type != "cuda" or 4 * self.pixels.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return dataclasses.replace(self, pixels=self.pixels.to(device), mapped=None)

    def batch(self, index: Tensor | slice, device: torch.device | str = "cpu") -> Tensor:
        """Images as float (B, C, H, W) in [0, 1] on a device."""
        x = self.pixels[index].to(device, non_blocking=True).float() / 255
        cache.release(self.mapped)
        return x


def load_images(
    dataset: str,
    split: str = "train",
    *,
    size: int | Size | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    max_samples: int | None = None,
) -> ImageSet:
    """The images of one split of a data set.

    Args:
        dataset: `sprites`; `avatars` or `avatars:STYLE`; a torchvision name such as `cifar10`; a
            folder of images in any nesting, of IDX files, or of parquet files; a parquet file; a
            Hub data set id.
        split: "train" or "test". A source without a test split holds out a fixed tenth.
        size: (height, width) to bring the images to, or one number for squares; None keeps theirs
            if they all agree on one of at most 128 pixels, else 64x64.
        channels: None is 1 if the images are all grey, else 3.
        image_column: the column with the images, where the data have columns.
        data_dir: where torchvision's data are or go.
        streaming: decode a Hub data set as it is downloaded, and store nothing else of it.
        max_samples: how many training images to take, the first ones; with streaming, a tenth as
            many to test on.

    Raises:
        DataError: nothing there, or nothing readable.
    """
    if split not in ("train", "test"):
        raise DataError(f"split must be 'train' or 'test', not {split!r}")
    size = (size, size) if isinstance(size, int) else size
    source = find_source(dataset)
    if streaming and not source.streams:
        raise DataError(f"only a Hub data set can be streamed, not {dataset}")
    records: Records = source.records(
        Request(dataset, split, size, channels, image_column, data_dir, streaming, max_samples)
    )
    if records.whole:
        records = _share(records, split)
    if max_samples and split == "train" and len(records) > max_samples:
        records = records.some(range(max_samples))
    if not len(records):
        raise DataError(f"{dataset} has no images for {split}")
    if size is None or channels is None:
        own_size, own_channels = records.fitting()
        size, channels = size or own_size, channels or own_channels
    found = cache.decode(records, (channels, *size))
    if not len(found.pixels):
        first = found.skipped[0] if found.skipped else "there are fewer, so ask for fewer"
        raise DataError(f"none of the {len(records)} images in {dataset} can be read: {first}")
    about = records.drawn, records.licence, records.credit
    return ImageSet(dataset_name(dataset), split, *found, *about)


def _share(records: Records, split: str) -> Records:
    """A fixed tenth for testing and the rest for training."""
    n = len(records)
    if n < 2:
        raise DataError(f"{n} image is not enough: one is held out to measure on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    held_out = max(1, round(HELD_OUT * n))
    return records.some(sorted(order[:held_out] if split == "test" else order[held_out:]))
