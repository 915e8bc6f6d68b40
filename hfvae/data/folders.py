"""Folders: of image files in any nesting, and of IDX files of the MNIST kind."""

import gzip
import hashlib
import math
import os
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import expand
from ..images import regular
from .base import DataError, Request, Source
from .records import Records
from .tables import table

IMAGE_FILES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_IDX = 2**30  # bytes of the images in an IDX file


class Folder(Source):
    """Image files; `train/` and `test/` are used if both are there. Or parquet files."""

    def has(self, dataset: str) -> bool:
        return expand(dataset).is_dir()

    def records(self, asked: Request) -> Records:
        folder = expand(asked.dataset)
        files = _files(folder)
        if any(name.endswith(".parquet") for name in files):
            return table(str(folder), asked, folder)
        train, test = (
            next((part + os.sep for part in parts if (folder / part).is_dir()), "")
            for parts in (["train"], ["test", "val", "validation"])
        )
        whole = not (train and test)
        within = test if asked.split == "test" and not whole else train
        names = [
            name
            for name, problem in files.items()
            if name.startswith(within)
            and (problem or os.path.splitext(name)[1].lower() in IMAGE_FILES)
        ]
        if not names:
            kinds = ", ".join(sorted(IMAGE_FILES))
            raise DataError(f"{folder / within} holds no images ({kinds})")
        sha = hashlib.sha256(os.fsencode(folder.absolute()))
        for name in names:
            with suppress(OSError):  # decoding will name it
                at = os.stat(folder / name)
                sha.update(os.fsencode(f"{name} {at.st_size} {at.st_mtime_ns}\n"))
        return Records(
            len(names),
            lambda numbers: ((names[i], files[names[i]] or folder / names[i]) for i in numbers),
            sha.hexdigest(),
            whole,
        )


def _files(folder: Path) -> dict[str, OSError | None]:
    """The files in a folder and below it, by their relative paths, in order, no hidden ones; and
    the folders below it that cannot be listed, with the reason."""
    found: dict[str, OSError | None] = {}
    seen = set()

    def keep(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise DataError(f"{folder} cannot be read: {error.strerror}") from error
        name = os.path.relpath(error.filename, folder) + os.sep
        found[name] = OSError(f"the folder cannot be read: {error.strerror}")

    for where, folders, files in os.walk(folder, onerror=keep, followlinks=True):
        place = os.stat(where)
        if (place.st_dev, place.st_ino) in seen:  # a link that leads back, or here twice
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(where, folder)
        start = "" if below == "." else below + os.sep
        found |= {start + name: None for name in sorted(files) if not name.startswith(".")}
    return found


class Idx(Source):
    """`train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, with .gz or without."""

    def has(self, dataset: str) -> bool:
        return any(expand(dataset).glob("*-images-idx3-ubyte*"))

    def records(self, asked: Request) -> Records:
        start = {"train": "train", "test": "t10k"}[asked.split] + "-images-idx3-ubyte"
        found = sorted(expand(asked.dataset).glob(start + "*"))
        if not found:
            raise DataError(f"{asked.dataset} has no {start} file")
        images = _read_idx(found[0])
        return Records(len(images), lambda numbers: ((f"image {i}", images[i]) for i in numbers))


def _read_idx(path: Path) -> np.ndarray:
    """Grey images: uint8 (N, H, W)."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(regular(path), "rb") as f:
            if len(header := f.read(16)) < 16:
                raise EOFError("it has no header")
            magic, *shape = np.frombuffer(header, ">i4").tolist()
            if magic != 0x803 or min(shape) < 1:
                raise DataError(f"{path} is no IDX file of images")
            if (size := math.prod(shape)) > MAX_IDX:
                raise DataError(
                    f"{path} declares {size:,} bytes of images; at most {MAX_IDX:,} are read"
                )
            images = np.empty(shape, np.uint8)
            read = sum(f.readinto(image) for image in images)
            if read < size or f.read(1):  # at the end, gzip looks at its checksum
                raise EOFError("it holds fewer or more images than it declares")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    return images
