"""Training images: whatever they come from, one uint8 tensor of decoded pixels.

In memory when it is small, mapped from a file on disk when it is large.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import decoding, sprites
from .decoding import allocate, decode, opened
from .sources import (
    HELD_OUT,
    DataError,
    Grey,
    Records,
    Stream,
    Subset,
    check_name,
    dataset_name,
    find_records,
    streamed,
)

SPRITES = {"train": 20_000, "test": 2_000}  # how many of the 589,824, none of them in both
DEFAULT_SIZE = (64, 64)  # for images that do not all have one small size


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
    """

    name: str
    split: str
    pixels: Tensor
    factors: Tensor | None = None
    skipped: list[str] = field(default_factory=list)
    note: str = ""
    mapped: Any = None

    def __len__(self) -> int:
        return len(self.pixels)

    def fingerprint(self) -> str:
        """SHA-256 of the pixels: of all of them, or of evenly spaced ones of a set in a file."""
        every = max(1, math.ceil(self.pixels.nbytes / decoding.IN_MEMORY))
        return decoding.checksum(self.pixels[::every].cpu().numpy(), len(self), self.mapped)

    def resident(self, device: torch.device) -> "ImageSet":
        """The same images in the memory of a GPU that has room for them four times over."""
        if device.type != "cuda" or 4 * self.pixels.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return dataclasses.replace(self, pixels=self.pixels.to(device), mapped=None)

    def batch(self, index: Tensor | slice, device: torch.device | str = "cpu") -> Tensor:
        """Images as float (B, C, H, W) in [0, 1] on a device."""
        x = self.pixels[index].to(device, non_blocking=True).float() / 255
        decoding.release(self.mapped)
        return x


def load_images(
    dataset: str,
    split: str = "train",
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    max_samples: int | None = None,
) -> ImageSet:
    """The images of one split of a data set.

    Args:
        dataset: `sprites`; a torchvision name such as `cifar10`; a folder of images in any
            nesting, of IDX files, or of parquet files; a parquet file; a Hub data set id.
        split: "train" or "test". A source without a test split holds out a fixed tenth.
        size: (height, width) to bring the images to; None keeps theirs if they all agree on one of
            at most 128 pixels, else 64x64.
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
    check_name(dataset)
    name = dataset_name(dataset)
    if dataset == "sprites":
        return _sprites(split, size or DEFAULT_SIZE, channels or 3)
    records: Records | Stream
    if streaming:
        records = streamed(dataset, split, image_column, max_samples)
    else:
        records, has_split = find_records(dataset, split, image_column, data_dir)
        if not has_split:
            records = _share(records, split)
        if max_samples and split == "train":
            records = Subset(records, range(min(max_samples, len(records))))
    if not len(records):
        raise DataError(f"{dataset} has no images for {split}")
    if size is None or channels is None:
        own_size, own_channels = _look(records)
        size, channels = size or own_size, channels or own_channels
    if isinstance(records, Grey) and records.images.shape[1:] == size and channels == 1:
        return ImageSet(name, split, torch.from_numpy(records.images[:, None]))
    pixels, skipped, note, mapped = decode(records, size, channels, records.identity())
    if not len(pixels):
        first = skipped[0] if skipped else "there are fewer, so ask for fewer"
        raise DataError(f"none of the {len(records)} images in {dataset} can be read: {first}")
    return ImageSet(name, split, pixels, skipped=skipped, note=note, mapped=mapped)


def _sprites(split: str, size: tuple[int, int], channels: int) -> ImageSet:
    """Combinations of factors drawn without replacement, the first of them for training."""
    order = torch.randperm(
        math.prod(sprites.FACTORS.values()), generator=torch.Generator().manual_seed(0)
    )
    start = 0 if split == "train" else SPRITES["train"]
    factors = sprites.combination(order[start : start + SPRITES[split]])
    pixels = torch.from_numpy(allocate((len(factors), channels, *size)))
    for i in range(0, len(factors), 256):
        try:
            pixels[i : i + 256] = sprites.render(factors[i : i + 256], size, channels)
        except ValueError as error:
            raise DataError(str(error)) from error
    return ImageSet("sprites", split, pixels, factors)


def _share(records: Records, split: str) -> Records:
    """A fixed tenth for testing and the rest for training."""
    n = len(records)
    if n < 2:
        raise DataError(f"{n} image is not enough: one is held out to measure on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    held_out = max(1, round(HELD_OUT * n))
    return Subset(records, sorted(order[:held_out] if split == "test" else order[held_out:]))


# The size and channels that fit


def _look(records: Records | Stream) -> tuple[tuple[int, int], int]:
    """The size and channels that fit a data set, from a sample of its images."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for image in _headers(records):
        sizes[image.height, image.width] += 1
        grey &= image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
    own = next(iter(sizes)) if len(sizes) == 1 else DEFAULT_SIZE
    return own if min(own) >= 8 and max(own) <= 128 else DEFAULT_SIZE, 1 if grey and sizes else 3


def _headers(records: Records | Stream) -> Iterator[Image.Image]:
    if isinstance(records, Stream):
        some = islice(records, 65)
    else:
        some = (records[i] for i in range(0, len(records), max(1, len(records) // 64)))
    for _, source in some:
        try:
            source = opened(source)
            yield Image.fromarray(source) if isinstance(source, np.ndarray) else source
        except Exception:  # decoding will name it
            continue
