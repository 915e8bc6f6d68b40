"""Image files to one array of bytes: in parallel, and kept for later runs when they are many."""

import hashlib
import io
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Condition
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import printable
from .images import MAX_PIXELS, read_header, to_bytes

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

CACHE = Path("~/.cache/hfvae").expanduser()
IN_MEMORY = 2**30  # bytes of decoded images; more than that stays in a file
WORTH_KEEPING = 2**26  # bytes from which decoded images are kept for later runs
PIXELS, FACTS = "pixels", "facts.json"  # of a kept set: what was decoded, and what is said of it
VERSION = 2  # of what decoding does: another one decodes again

# An image's name, and a path, bytes, array or PIL image, or the error of why there is none.
Record = tuple[str, Any]


class Decoded(NamedTuple):
    """Images (N, C, H, W) in uint8, what could not be read, and words on where they are kept."""

    pixels: Tensor
    skipped: list[str]
    note: str = ""
    mapped: mmap.mmap | None = None  # the file that the pixels are in, if they are in one


def decode(
    records: Any, size: tuple[int, int], channels: int, identity: str | None = None
) -> Decoded:
    """All records as pixels, and "name: reason" for those that cannot be read.

    Args:
        records: (name, source) pairs, with a length.
        size, channels: of the result.
        identity: changes when the records do; with it, many images are kept on disk, and found
            there by later runs.
    """
    _clear(CACHE / "decoded")
    shape = (len(records), channels, *size)
    if identity is None or np.prod(shape) < WORTH_KEEPING:
        pixels, skipped = _fill(records, allocate(shape), size, channels)
        return Decoded(torch.from_numpy(pixels), skipped)
    key = hashlib.sha256(json.dumps([VERSION, identity, shape]).encode()).hexdigest()[:32]
    folder = CACHE / "decoded" / key
    once = "once"
    if folder.exists():
        try:
            kept = _read(folder, shape[1:])
            words = f"using {len(kept.pixels)} images decoded before, in {folder}"
            return kept._replace(note=words)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            once = "again, because what was kept of them is damaged"
    try:
        _write(folder, records, shape)
        kept = _read(folder, shape[1:])
    except OSError as error:
        pixels, skipped = _fill(records, allocate(shape), size, channels)
        return Decoded(torch.from_numpy(pixels), skipped, f"decoded images are not kept: {error}")
    words = f"decoded {len(kept.pixels)} images {once}, for later runs in {folder}"
    return kept._replace(note=words)


def _write(folder: Path, records: Any, shape: tuple[int, ...]) -> None:
    """Decode into a folder, which is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        with open(stage / PIXELS, "w+b") as file:
            _lock(file)
            _reserve(file, int(np.prod(shape)))
            mapped = mmap.mmap(file.fileno(), int(np.prod(shape)))
            pixels = np.frombuffer(mapped, np.uint8).reshape(shape)
            filled, skipped = _fill(records, pixels, shape[2:], shape[1], mapped)
            facts = {"skipped": skipped, "sha256": checksum(filled, skipped, mapped)}
            file.truncate(filled.nbytes)
            (stage / FACTS).write_text(json.dumps(facts))
            if not folder.exists():  # another process may have been as far
                os.replace(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _lock(file: Any) -> None:
    """Hold a file for as long as this process has it open; OSError if another one does."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear(parent: Path) -> None:
    """Remove what processes that were killed were writing."""
    for left in parent.glob(".*") if fcntl is not None else ():
        try:
            with open(left / PIXELS, "r+b") as file:
                _lock(file)
        except FileNotFoundError:  # killed before there was one
            pass
        except OSError:  # it lives
            continue
        shutil.rmtree(left, ignore_errors=True)


def _read(folder: Path, shape: tuple[int, ...]) -> Decoded:
    """What is kept in a folder.

    Raises:
        OSError: it cannot be read, or is not what was written.
    """
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        skipped, sha256 = facts["skipped"], facts["sha256"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise OSError(f"{folder / FACTS} is damaged") from error
    n, mapped = (folder / PIXELS).stat().st_size // math.prod(shape), None
    pixels = np.empty((0, *shape), np.uint8)
    if n:
        # Copy on write: torch wants an array that may be written to.
        with open(folder / PIXELS, "rb") as file:
            mapped = mmap.mmap(file.fileno(), n * math.prod(shape), access=mmap.ACCESS_COPY)
        pixels = np.frombuffer(mapped, np.uint8).reshape(n, *shape)
    if pixels.nbytes <= IN_MEMORY:
        mapped = None  # what is small stays in memory once it was read
    if checksum(pixels, skipped, mapped) != sha256:
        raise OSError(f"{folder} is damaged")
    return Decoded(torch.from_numpy(pixels), skipped, mapped=mapped)


def checksum(pixels: np.ndarray, facts: Any, mapped: mmap.mmap | None = None) -> str:
    """SHA-256 of images (N, C, H, W), their number and size, and facts that JSON can hold."""
    sha = hashlib.sha256(json.dumps([pixels.shape, facts]).encode())
    for i in range(0, len(pixels), 1024):
        sha.update(np.ascontiguousarray(pixels[i : i + 1024]).data)
        release(mapped)
    return sha.hexdigest()


def release(mapped: mmap.mmap | None) -> None:
    """Let what was read of a file leave this process's memory; the system may keep it cached."""
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _fill(
    records: Iterable[Record],
    pixels: np.ndarray,
    size: Any,
    channels: int,
    mapped: mmap.mmap | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Decode into an array, and return its part that was filled."""
    skipped: list[str] = []
    n, share = 0, Share(MAX_PIXELS)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        source = iter(records)
        while chunk := list(islice(source, 1024)):
            for name, image, problem in pool.map(partial(_decode, size, channels, share), chunk):
                if image is None:
                    skipped.append(f"{printable(name)}: {problem}")
                else:
                    pixels[n] = image
                    n += 1
            release(mapped)
    return pixels[:n], skipped


class Share:
    """Lets threads work on images at once that have at most so many pixels together."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most
        self.changed = Condition()

    @contextmanager
    def of(self, pixels: int) -> Generator[None]:
        pixels = min(pixels, self.most)  # an array can be larger, and is then alone
        with self.changed:
            self.changed.wait_for(lambda: self.left >= pixels)
            self.left -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.left += pixels
                self.changed.notify_all()


def _decode(
    size: Any, channels: int, share: Share, record: Record
) -> tuple[str, np.ndarray | None, str]:
    name, source = record
    try:
        image = opened(source)
        pixels = math.prod(image.size if isinstance(image, Image.Image) else image.shape[:2])
        with share.of(pixels):
            decoded = to_bytes(image, size, channels)
            del image  # before the next one is opened
        return name, decoded, ""
    except Exception as error:  # decoders fail in many ways, and one picture must not stop a run
        return name, None, printable(error) or type(error).__name__


def opened(source: Any) -> Image.Image | np.ndarray:
    """What a record holds as an array, or as an image that is not decoded yet."""
    if isinstance(source, Exception):
        raise source
    if isinstance(source, str) and source.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        source = HfFileSystem().cat_file(source)
    if isinstance(source, (Image.Image, np.ndarray)):
        return source
    return read_header(io.BytesIO(source) if isinstance(source, bytes) else source)


def allocate(shape: tuple[int, ...]) -> np.ndarray:
    """Space for images: memory, or a file without a name that goes with the process."""
    if np.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=CACHE) as file:  # the mapping outlives it
        _reserve(file, int(np.prod(shape)))
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _reserve(file: Any, size: int) -> None:
    """Space on the disk, so that a full one says so now and in words."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
