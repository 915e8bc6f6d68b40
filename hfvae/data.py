"""Where training images come from: names, folders, files and Hub data sets, told apart by looking.

Whatever the source, the result is one uint8 tensor of decoded images: in memory when it is small,
mapped from a file on disk when it is large.
"""

import dataclasses
import gzip
import hashlib
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import decoding, sprites
from .decoding import Record, decode, opened, room
from .errors import NEEDS_TRAIN, expand

IMAGE_FILES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# The names that torchvision knows, as (class, arguments for training, arguments for testing).
TORCHVISION: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mnist": ("MNIST", {"train": True}, {"train": False}),
    "fashion-mnist": ("FashionMNIST", {"train": True}, {"train": False}),
    "kmnist": ("KMNIST", {"train": True}, {"train": False}),
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
    "stl10": ("STL10", {"split": "train+unlabeled"}, {"split": "test"}),
    "celeba": ("CelebA", {"split": "train"}, {"split": "test"}),
    "flowers102": ("Flowers102", {"split": "train"}, {"split": "test"}),
}
LICENCES = {"sprites": "apache-2.0", "fashion-mnist": "mit", "mnist": "cc-by-sa-3.0"}
HELD_OUT = 0.1  # of the images, where a source has no test split of its own
SPRITES = {"train": 20_000, "test": 2_000}  # how many of the 589,824, none of them in both
DEFAULT_SIZE = (64, 64)  # for images that do not all have one small size


class DataError(ValueError):
    """A data set cannot be found or read; the message says what was wrong."""


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

    def resident(self, device: torch.device) -> "ImageSet":
        """The same images in the memory of a GPU that has room for them four times over."""
        if device.type != "cuda" or 4 * self.pixels.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return dataclasses.replace(self, pixels=self.pixels.to(device), mapped=None)

    def batch(self, index: Tensor | slice, device: torch.device | str = "cpu") -> Tensor:
        """Images as float (B, C, H, W) in [0, 1] on a device."""
        x = self.pixels[index].to(device, non_blocking=True).float() / 255
        decoding.let_go(self.mapped)
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
    records: Sequence[Record] | _Stream
    if streaming:
        records = _streamed(dataset, split, image_column, max_samples)
    else:
        records, has_split = find_records(dataset, split, image_column, data_dir)
        if not has_split:
            records = _share(records, split)
        if max_samples and split == "train":
            records = _Subset(records, range(min(max_samples, len(records))))
    if not len(records):
        raise DataError(f"{dataset} has no images for {split}")
    if size is None or channels is None:
        own_size, own_channels = _look(records)
        size, channels = size or own_size, channels or own_channels
    if isinstance(records, _Grey) and records.images.shape[1:] == size and channels == 1:
        return ImageSet(name, split, torch.from_numpy(records.images[:, None].copy()))
    pixels, skipped, note, mapped = decode(records, size, channels, identity(records))
    if not len(pixels):
        first = skipped[0] if skipped else "there are fewer, so ask for fewer"
        raise DataError(f"none of the {len(records)} images in {dataset} can be read: {first}")
    return ImageSet(name, split, pixels, skipped=skipped, note=note, mapped=mapped)


def identity(records: "Sequence[Record] | _Stream") -> str | None:
    """What changes when any image does; None where that is not known."""
    if isinstance(records, _Rows):
        return f"{records.rows._fingerprint} {records.column}"
    if isinstance(records, _Subset):
        inner = identity(records.records)
        chosen = hashlib.sha256(np.asarray(records.chosen, np.int64).tobytes()).hexdigest()
        return inner and f"{inner} {chosen}"
    if isinstance(records, _Pairs):  # torchvision's own are fixed by their checksums
        pairs = records.pairs
        return f"{type(pairs).__name__} {len(pairs)} {getattr(pairs, 'root', '')}"
    if not isinstance(records, _Files):
        return None
    root = os.path.abspath(records.root)
    sha = hashlib.sha256(root.encode())
    for name in records.names:
        try:
            found = os.stat(f"{root}/{name}")
        except OSError:  # decoding will name it
            continue
        sha.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return sha.hexdigest()


def dataset_name(dataset: str) -> str:
    """A short name for folders and cards: the last part of a path or id."""
    path = expand(dataset)
    return path.stem if path.is_file() else path.resolve().name


def check_name(dataset: str) -> None:
    """Raise DataError if a data set cannot be there, before anything is read."""
    known = dataset == "sprites" or dataset.lower() in TORCHVISION
    if not (known or expand(dataset).exists() or is_hub_id(dataset)):
        raise DataError(
            f"there is no folder or file {dataset}, and no data set of that name; known names: "
            f"sprites, {', '.join(TORCHVISION)}; a Hub data set is owner/name"
        )


def licence(dataset: str) -> str | None:
    """The licence of the data that have one here; a folder of that name is something else."""
    return None if expand(dataset).exists() else LICENCES.get(dataset.lower())


def is_hub_id(dataset: str) -> bool:
    """Whether a name may be `owner/name`."""
    return dataset.count("/") == 1 and not dataset.startswith((".", "/", "~"))


def find_records(
    dataset: str, split: str, image_column: str | None, data_dir: str | Path | None
) -> tuple[Sequence[Record], bool]:
    """The images behind a name, and whether the source itself tells train from test."""
    path = expand(dataset)
    if path.is_dir():
        if any(path.glob("*-images-idx3-ubyte*")):
            return _idx(path, split)
        names = _names(path)
        if any(name.endswith(".parquet") for name in names):
            return _columns(str(path), split, image_column)
        return _folder(path, names, split)
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path} is a file; give a folder of images or a parquet file")
        return _columns("parquet", split, image_column, data_files=str(path))
    if dataset.lower() in TORCHVISION:
        return _torchvision(dataset.lower(), split, data_dir)
    return _columns(dataset, split, image_column)


# The sources


def _sprites(split: str, size: tuple[int, int], channels: int) -> ImageSet:
    """Combinations of factors drawn without replacement, the first of them for training."""
    order = torch.randperm(
        math.prod(sprites.FACTORS.values()), generator=torch.Generator().manual_seed(0)
    )
    start = 0 if split == "train" else SPRITES["train"]
    factors = sprites.combination(order[start : start + SPRITES[split]])
    pixels = torch.from_numpy(room((len(factors), channels, *size)))
    for i in range(0, len(factors), 256):
        try:
            pixels[i : i + 256] = sprites.render(factors[i : i + 256], size, channels)
        except ValueError as error:
            raise DataError(str(error)) from error
    return ImageSet("sprites", split, pixels, factors)


def _idx(folder: Path, split: str) -> tuple[Sequence[Record], bool]:
    """Files of the MNIST kind: `train-images-idx3-ubyte` and `t10k-...`, with .gz or without."""
    prefix = {"train": "train", "test": "t10k"}[split]
    found = sorted(folder.glob(f"{prefix}-images-idx3-ubyte*"))
    if not found:
        raise DataError(f"{folder} has no {prefix}-images-idx3-ubyte file")
    opener = gzip.open if found[0].suffix == ".gz" else open
    try:
        with opener(found[0], "rb") as f:
            data = f.read()
        magic, n, h, w = np.frombuffer(data, ">i4", count=4)
        images = np.frombuffer(data, np.uint8, offset=16).reshape(n, h, w)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{found[0]} is damaged ({error})") from error
    if magic != 0x803:
        raise DataError(f"{found[0]} is no IDX file of images")
    return _Grey(images), True


def _folder(folder: Path, names: list[str], split: str) -> tuple[Sequence[Record], bool]:
    """Image files in any nesting; `train/` and `test/` are used if both are there."""
    parts = {"train": ["train"], "test": ["test", "val", "validation"]}
    own = {
        s: next((p + os.sep for p in choices if (folder / p).is_dir()), "")
        for s, choices in parts.items()
    }
    has_split = all(own.values())
    inside = own[split] if has_split else own["train"]
    names = [name for name in names if name.startswith(inside) and _is_image(name)]
    if not names:
        kinds = ", ".join(sorted(IMAGE_FILES))
        raise DataError(f"{folder / inside} holds no images ({kinds})")
    return _Files(folder, names), has_split


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_FILES


def _names(folder: Path) -> list[str]:
    """The files in a folder and below it, by their relative paths, in order, no hidden ones."""
    found = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(where, folder)
        prefix = "" if below == "." else below + os.sep
        found += [prefix + name for name in sorted(files) if not name.startswith(".")]
    return found


def _columns(
    source: str, split: str, image_column: str | None, **kwargs: Any
) -> tuple[Sequence[Record], bool]:
    """Anything that `datasets` reads without running code: parquet, image folders, Hub ids."""
    rows, column, has_split = _table(source, split, image_column, **kwargs)
    return _Rows(rows, column, _places(source, kwargs.get("data_files"))), has_split


def _places(source: str, file: str | None = None) -> tuple[str, ...]:
    """Where a table's images may lie if not in the table itself.

    A cell may name any path: without this, a data set from the Hub could read the files of whoever
    trains on it.
    """
    from datasets import config
    from huggingface_hub import constants

    folder = Path(file).parent if file else expand(source)
    if folder.is_dir():
        return (str(folder.resolve()),)
    cached = Path(constants.HF_HUB_CACHE) / f"datasets--{source.replace('/', '--')}"
    extracted = Path(config.HF_DATASETS_CACHE) / "downloads"
    return f"hf://datasets/{source}@", str(cached.resolve()), str(extracted.resolve())


def _streamed(
    source: str, split: str, image_column: str | None, max_samples: int | None
) -> "_Stream":
    """The rows of a Hub data set in the order in which they arrive."""
    if not is_hub_id(source) or expand(source).exists():
        raise DataError(f"only a Hub data set can be streamed, not {source}")
    rows, column, has_split = _table(source, split, image_column, streaming=True)
    splits = rows.info.splits or {}
    known = splits[rows.split].num_examples if rows.split in splits else None
    total = min(n for n in (known, max_samples, math.inf) if n)
    if total == math.inf:
        raise DataError(
            f"{source} does not say how many images it has: say how many to take with "
            "--max_train_samples"
        )
    held_out = max(1, round(HELD_OUT * total))
    if has_split:
        n = total if split == "train" or not max_samples else held_out
    elif split == "train":
        rows, n = rows.skip(held_out), total if total == max_samples else total - held_out
    else:
        n = held_out
    return _Stream(rows, column, _places(source), int(n))


def _table(
    source: str, split: str, image_column: str | None, **kwargs: Any
) -> tuple[Any, str, bool]:
    """The rows of one split, the column of images, and whether the source has a test split."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"this data set {NEEDS_TRAIN}") from error

    try:
        splits = datasets.load_dataset(source, **kwargs)
    except Exception as error:  # every cause of `datasets` is its own class; all mean this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot load the data set {source}: {reason:.300}") from error
    test = next((s for s in ("test", "validation", "val") if s in splits), None)
    train = (
        "train" if "train" in splits else next(s for s in splits if s != test or len(splits) == 1)
    )
    has_split = test is not None and test != train
    rows = splits[test if split == "test" and has_split else train]
    images = [c for c, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    column = image_column or next(iter(images), "")
    if column not in images:
        raise DataError(
            f"{source} has no image column{f' {column!r}' if column else ''}; its image columns: "
            f"{', '.join(images) or 'none'}; all: {', '.join(rows.features)}"
        )
    if isinstance(rows, datasets.IterableDataset):
        return rows.decode(False), column, has_split
    rows = rows.select_columns(column).cast_column(column, datasets.Image(decode=False))
    return rows, column, has_split


def _torchvision(
    name: str, split: str, data_dir: str | Path | None
) -> tuple[Sequence[Record], bool]:
    import torchvision

    kind, train, test = TORCHVISION[name]
    root = expand(data_dir) if data_dir else decoding.CACHE
    arguments = train if split == "train" else test
    try:
        images = getattr(torchvision.datasets, kind)(str(root), download=True, **arguments)
    except (RuntimeError, OSError) as error:
        raise DataError(f"torchvision cannot fetch {name} into {root}: {error}") from error
    return _Pairs(images), True


class _Grey(Sequence):
    """Decoded grey images (N, H, W) as records."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: Any) -> Any:
        return f"image {i}", self.images[i]


class _Rows(Sequence):
    """Rows of a `datasets` table as records, read when they are asked for."""

    def __init__(self, rows: Any, column: str, places: tuple[str, ...]) -> None:
        self.rows, self.column, self.places = rows, column, places

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return _cell(i, self.rows[int(i)][self.column], self.places)


class _Stream:
    """The first n rows of a streamed table as records, in the order in which they arrive."""

    def __init__(self, rows: Any, column: str, places: tuple[str, ...], n: int) -> None:
        self.rows, self.column, self.places, self.n = rows, column, places, n

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Record]:
        for i, row in enumerate(islice(self.rows, self.n)):
            yield _cell(i, row[self.column], self.places)


def _cell(i: int, cell: dict[str, Any] | None, places: tuple[str, ...]) -> Record:
    """An image of a table: its bytes, or the path of its file, where that may lie."""
    cell = cell or {}
    path = cell.get("path") or ""
    name = path or f"row {i}"
    if cell.get("bytes"):
        return name, cell["bytes"]
    full = path if path.startswith("hf://") else os.path.realpath(path)
    if path and ".." not in path and full.startswith(places):
        return name, full
    return name, None  # which decoding will name


class _Pairs(Sequence):
    """A torchvision data set of (image, label) as records."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: Any) -> Any:
        return f"image {i}", self.pairs[int(i)][0]


class _Files(Sequence):
    """Image files in a folder, by their paths within it."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: Any) -> Any:
        return self.names[i], self.root / self.names[i]


class _Subset(Sequence):
    """Some of a sequence of records."""

    def __init__(self, records: Sequence[Record], chosen: Sequence[int]) -> None:
        self.records, self.chosen = records, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: Any) -> Any:
        return self.records[self.chosen[i]]


def _share(records: Sequence[Record], split: str) -> Sequence[Record]:
    """A fixed tenth for testing and the rest for training."""
    n = len(records)
    if n < 2:
        raise DataError(f"{n} image is not enough: one is held out to measure on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    held_out = max(1, round(HELD_OUT * n))
    return _Subset(records, sorted(order[:held_out] if split == "test" else order[held_out:]))


# The size and channels that fit


def _look(records: "Sequence[Record] | _Stream") -> tuple[tuple[int, int], int]:
    """The size and channels that fit a data set, from a sample of its images."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for image in _headers(records):
        sizes[image.height, image.width] += 1
        grey &= image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
    own = next(iter(sizes)) if len(sizes) == 1 else DEFAULT_SIZE
    return own if min(own) >= 8 and max(own) <= 128 else DEFAULT_SIZE, 1 if grey and sizes else 3


def _headers(records: "Sequence[Record] | _Stream") -> Iterator[Image.Image]:
    if isinstance(records, _Stream):
        some = islice(records, 65)
    else:
        some = (records[i] for i in range(0, len(records), max(1, len(records) // 64)))
    for _, source in some:
        try:
            source = opened(source)
            if isinstance(source, np.ndarray):
                source = Image.fromarray(source)
            yield source if isinstance(source, Image.Image) else Image.open(source)
        except Exception:  # decoding will name it
            continue
