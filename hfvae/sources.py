"""The images behind a name: a folder, a file, torchvision's or the Hub's, told apart by looking.

Whatever the source, the result is records, (name, path or bytes or array or picture), that are read
when they are asked for.
"""

import gzip
import hashlib
import math
import os
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from . import decoding
from .decoding import Record
from .errors import NEEDS_TRAIN, expand, printable
from .images import regular

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
MAX_IDX = 2**30  # bytes of the images in an IDX file
HELD_OUT = 0.1  # of the images, where a source has no test split of its own


class DataError(ValueError):
    """A data set cannot be found or read; the message says what was wrong."""


# Records


class Records(Sequence):
    """Images by their numbers: `records[i]` is (name, what it can be decoded from)."""

    @abstractmethod
    def identity(self) -> str | None:
        """What changes when any image does; None where that is not known."""


class Grey(Records):
    """Decoded grey images (N, H, W)."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: Any) -> Any:
        return f"image {i}", self.images[i]

    def identity(self) -> None:
        return None


class Rows(Records):
    """Rows of a `datasets` table."""

    def __init__(self, rows: Any, column: str, places: tuple[str, ...]) -> None:
        self.rows, self.column, self.places = rows, column, places

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return _cell(i, self.rows[int(i)][self.column], self.places)

    def identity(self) -> str:
        return f"{self.rows._fingerprint} {self.column}"


class Pairs(Records):
    """A torchvision data set of (image, label)."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: Any) -> Any:
        return f"image {i}", self.pairs[int(i)][0]

    def identity(self) -> str:
        """Its files are fixed by torchvision's checksums."""
        return f"{type(self.pairs).__name__} {len(self.pairs)} {getattr(self.pairs, 'root', '')}"


class Files(Records):
    """Image files in a folder, by their paths within it; and what could not be listed there."""

    def __init__(self, root: Path, names: list[str], problems: dict[str, OSError]) -> None:
        self.root, self.problems = root, problems
        self.names = names + list(problems)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: Any) -> Any:
        name = self.names[i]
        return name, self.problems.get(name, self.root / name)

    def identity(self) -> str:
        root = os.path.abspath(self.root)
        sha = hashlib.sha256(os.fsencode(root))
        for name in self.names:
            try:
                found = os.stat(f"{root}/{name}")
            except OSError:  # decoding will name it
                continue
            sha.update(os.fsencode(f"{name} {found.st_size} {found.st_mtime_ns}\n"))
        return sha.hexdigest()


class Subset(Records):
    """Some of other records."""

    def __init__(self, records: Records, chosen: Sequence[int]) -> None:
        self.records, self.chosen = records, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: Any) -> Any:
        return self.records[self.chosen[i]]

    def identity(self) -> str | None:
        inner = self.records.identity()
        chosen = hashlib.sha256(np.asarray(self.chosen, np.int64).tobytes()).hexdigest()
        return inner and f"{inner} {chosen}"


class Stream:
    """The first n rows of a streamed table as records, in the order in which they arrive."""

    def __init__(self, rows: Any, column: str, places: tuple[str, ...], n: int) -> None:
        self.rows, self.column, self.places, self.n = rows, column, places, n

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Record]:
        for i, row in enumerate(islice(self.rows, self.n)):
            yield _cell(i, row[self.column], self.places)

    def identity(self) -> None:
        return None


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
    return name, OSError("not in the table, and its file is not in the data set")


# Names


def dataset_name(dataset: str) -> str:
    """A short name for folders and cards: the last part of a path or id."""
    path = expand(dataset)
    return printable(path.stem if path.is_file() else path.resolve().name)


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
) -> tuple[Records, bool]:
    """The images behind a name, and whether the source itself tells train from test."""
    path = expand(dataset)
    if path.is_dir():
        if any(path.glob("*-images-idx3-ubyte*")):
            return _idx(path, split)
        names, problems = _names(path)
        if any(name.endswith(".parquet") for name in names):
            return _columns(str(path), split, image_column)
        return _folder(path, names, problems, split)
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path} is a file; give a folder of images or a parquet file")
        return _columns("parquet", split, image_column, data_files=str(path))
    if dataset.lower() in TORCHVISION:
        return _torchvision(dataset.lower(), split, data_dir)
    return _columns(dataset, split, image_column)


# The sources


def _idx(folder: Path, split: str) -> tuple[Records, bool]:
    """Files of the MNIST kind: `train-images-idx3-ubyte` and `t10k-...`, with .gz or without."""
    prefix = {"train": "train", "test": "t10k"}[split]
    found = sorted(folder.glob(f"{prefix}-images-idx3-ubyte*"))
    if not found:
        raise DataError(f"{folder} has no {prefix}-images-idx3-ubyte file")
    opener = gzip.open if found[0].suffix == ".gz" else open
    try:
        with opener(regular(found[0]), "rb") as f:
            if len(header := f.read(16)) < 16:
                raise EOFError("it has no header")
            magic, *shape = np.frombuffer(header, ">i4").tolist()
            if magic != 0x803 or min(shape) < 1:
                raise DataError(f"{found[0]} is no IDX file of images")
            if (size := math.prod(shape)) > MAX_IDX:
                raise DataError(
                    f"{found[0]} declares {size:,} bytes of images; at most {MAX_IDX:,} are read"
                )
            images = np.empty(shape, np.uint8)
            read = sum(f.readinto(image) for image in images)
            if read < size or f.read(1):  # at the end, gzip looks at its checksum
                raise EOFError("it holds fewer or more images than it declares")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{found[0]} is damaged ({error})") from error
    return Grey(images), True


def _folder(
    folder: Path, names: list[str], problems: dict[str, OSError], split: str
) -> tuple[Records, bool]:
    """Image files in any nesting; `train/` and `test/` are used if both are there."""
    parts = {"train": ["train"], "test": ["test", "val", "validation"]}
    own = {
        s: next((p + os.sep for p in choices if (folder / p).is_dir()), "")
        for s, choices in parts.items()
    }
    has_split = all(own.values())
    inside = own[split] if has_split else own["train"]
    names = [name for name in names if name.startswith(inside) and _is_image(name)]
    problems = {name: error for name, error in problems.items() if name.startswith(inside)}
    if not names and not problems:
        kinds = ", ".join(sorted(IMAGE_FILES))
        raise DataError(f"{folder / inside} holds no images ({kinds})")
    return Files(folder, names, problems), has_split


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_FILES


def _names(folder: Path) -> tuple[list[str], dict[str, OSError]]:
    """The files in a folder and below it, by their relative paths, in order, no hidden ones; and
    the folders below it that cannot be listed."""
    found, seen, problems = [], set(), {}

    def keep(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise DataError(f"{folder} cannot be read: {error.strerror}") from error
        name = os.path.relpath(error.filename, folder) + os.sep
        problems[name] = OSError(f"the folder cannot be read: {error.strerror}")

    for where, folders, files in os.walk(folder, onerror=keep, followlinks=True):
        place = os.stat(where)
        if (place.st_dev, place.st_ino) in seen:  # a link that leads back, or here twice
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(where, folder)
        prefix = "" if below == "." else below + os.sep
        found += [prefix + name for name in sorted(files) if not name.startswith(".")]
    return found, problems


def _columns(
    source: str, split: str, image_column: str | None, **kwargs: Any
) -> tuple[Records, bool]:
    """Anything that `datasets` reads without running code: parquet, image folders, Hub ids."""
    rows, column, has_split = _table(source, split, image_column, **kwargs)
    return Rows(rows, column, _places(source, kwargs.get("data_files"))), has_split


def _places(source: str, file: str | None = None) -> tuple[str, ...]:
    """Where a table's images may lie if not in the table itself.

    A cell may name any path: without this, a data set from the Hub could read the files of whoever
    trains on it. Every place ends with a separator, so that no other one starts with its name.
    """
    from datasets import config
    from huggingface_hub import constants

    folder = Path(file).parent if file else expand(source)
    if folder.is_dir():
        return (os.path.join(folder.resolve(), ""),)
    cached = Path(constants.HF_HUB_CACHE) / f"datasets--{source.replace('/', '--')}"
    extracted = Path(config.HF_DATASETS_CACHE) / "downloads"
    local = (os.path.join(place.resolve(), "") for place in (cached, extracted))
    return f"hf://datasets/{source}@", *local


def streamed(source: str, split: str, image_column: str | None, max_samples: int | None) -> Stream:
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
    return Stream(rows, column, _places(source), int(n))


def _table(
    source: str, split: str, image_column: str | None, **kwargs: Any
) -> tuple[Any, str, bool]:
    """The rows of one split, the column of images, and whether the source has a test split."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"this data set {NEEDS_TRAIN}") from error

    try:
        splits: Any = datasets.load_dataset(source, **kwargs)
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


def _torchvision(name: str, split: str, data_dir: str | Path | None) -> tuple[Records, bool]:
    import torchvision

    kind, train, test = TORCHVISION[name]
    root = expand(data_dir) if data_dir else decoding.CACHE
    arguments = train if split == "train" else test
    try:
        images = getattr(torchvision.datasets, kind)(str(root), download=True, **arguments)
    except (RuntimeError, OSError) as error:
        raise DataError(f"torchvision cannot fetch {name} into {root}: {error}") from error
    return Pairs(images), True
