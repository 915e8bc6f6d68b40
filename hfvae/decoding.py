"""Image files to one array of bytes: in parallel, and kept for later runs when they are many."""

import hashlib
import io
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .images import to_bytes

CACHE = Path("~/.cache/hfvae").expanduser()
IN_MEMORY = 2**30  # bytes of decoded images; more than that stays in a file
WORTH_KEEPING = 2**26  # bytes from which decoded images are kept for later runs
VERSION = 1  # of what decoding does: another one decodes again

Record = tuple[str, Any]  # an image's name, and a path, bytes, array or PIL image


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
    shape = (len(records), channels, *size)
    if identity is None or np.prod(shape) < WORTH_KEEPING:
        pixels, skipped = _fill(records, room(shape), size, channels)
        return Decoded(torch.from_numpy(pixels), skipped)
    key = hashlib.sha256(json.dumps([VERSION, identity, shape]).encode()).hexdigest()[:32]
    folder = CACHE / "decoded" / key
    if (folder / "skipped.json").exists():
        kept = _read(folder, shape[1:])
        return kept._replace(note=f"using {len(kept.pixels)} images decoded before, in {folder}")
    try:
        _write(folder, records, shape)
    except OSError as error:
        pixels, skipped = _fill(records, room(shape), size, channels)
        return Decoded(torch.from_numpy(pixels), skipped, f"decoded images are not kept: {error}")
    kept = _read(folder, shape[1:])
    return kept._replace(note=f"decoded {len(kept.pixels)} images once, for later runs in {folder}")


def _write(folder: Path, records: Any, shape: tuple[int, ...]) -> None:
    """Decode into a folder, which is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        with open(stage / "pixels", "w+b") as file:
            _reserve(file, int(np.prod(shape)))
            mapped = mmap.mmap(file.fileno(), int(np.prod(shape)))
            pixels = np.frombuffer(mapped, np.uint8).reshape(shape)
            filled, skipped = _fill(records, pixels, shape[2:], shape[1], mapped)
            n = len(filled)
            file.truncate(n * int(np.prod(shape[1:])))
        (stage / "skipped.json").write_text(json.dumps(skipped))
        if not folder.exists():  # another process may have been as far
            os.replace(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _read(folder: Path, shape: tuple[int, ...]) -> Decoded:
    path = folder / "pixels"
    skipped = json.loads((folder / "skipped.json").read_text())
    n = path.stat().st_size // int(np.prod(shape))
    if not n:
        return Decoded(torch.empty((0, *shape), dtype=torch.uint8), skipped)
    with open(path, "rb") as file:  # copy on write: torch wants an array that may be written to
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    pixels = torch.from_numpy(np.frombuffer(mapped, np.uint8).reshape(n, *shape))
    # What is small stays in memory once it was read.
    return Decoded(pixels, skipped, mapped=mapped if pixels.nbytes > IN_MEMORY else None)


def let_go(mapped: mmap.mmap | None) -> None:
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
    n = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        source = iter(records)
        while chunk := list(islice(source, 1024)):
            for name, image, problem in pool.map(partial(_decode, size, channels), chunk):
                if image is None:
                    skipped.append(f"{name}: {problem}")
                else:
                    pixels[n] = image
                    n += 1
            let_go(mapped)
    return pixels[:n], skipped


def _decode(size: Any, channels: int, record: Record) -> tuple[str, np.ndarray | None, str]:
    name, source = record
    try:
        return name, to_bytes(opened(source), size, channels), ""
    except Exception as error:  # decoders fail in many ways, and one picture must not stop a run
        return name, None, str(error) if isinstance(source, Path) else type(error).__name__


def opened(source: Any) -> Any:
    """Bytes, and files that are still on the Hub, as something to read from."""
    if isinstance(source, str) and source.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        source = HfFileSystem().cat_file(source)
    return io.BytesIO(source) if isinstance(source, bytes) else source


def room(shape: tuple[int, ...]) -> np.ndarray:
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
