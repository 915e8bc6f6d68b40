"""Decoded images: one array of bytes, kept on disk for later runs where that saves much."""

import hashlib
import io
import json
import math
import mmap
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .records import Records

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

CACHE = Path("~/.cache/hfvae").expanduser()
IN_MEMORY = 2**30  # bytes of decoded images; more than that stays in a file
WORTH_KEEPING = 2**26  # bytes from which decoded images are kept for later runs
PIXELS, FACTS = "pixels", "facts.json"  # of a kept set: what was decoded, and what is said of it
VERSION = 3  # of what decoding does: another one decodes again


class Decoded(NamedTuple):
    """What became of records, as in `hfvae.data.ImageSet`."""

    pixels: Tensor
    factors: Tensor | None
    skipped: list[str]
    note: str = ""
    mapped: mmap.mmap | None = None


def decode(records: Records, shape: tuple[int, int, int]) -> Decoded:
    """All records as pixels (C, H, W). Many are kept on disk, and found there by later runs."""
    _clear(CACHE / "decoded")
    size = len(records) * math.prod(shape)
    if records.identity is None or not (records.label or size >= WORTH_KEEPING):
        return _decode(records, shape)
    key = json.dumps([VERSION, records.identity, len(records), shape])
    folder = CACHE / "decoded" / (records.label + hashlib.sha256(key.encode()).hexdigest()[:32])
    once = "once"
    try:
        kept = _read(folder, shape)
        return kept._replace(note=f"using {len(kept.pixels)} images decoded before, in {folder}")
    except OSError:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            once = "again, because what was kept of them is damaged"
    try:
        kept = _write(records, shape, folder)
    except OSError as error:
        return _decode(records, shape)._replace(note=f"decoded images are not kept: {error}")
    words = f"decoded {len(kept.pixels)} images {once}, for later runs in {folder}"
    return kept._replace(note=words)


def _decode(records: Records, shape: tuple[int, int, int]) -> Decoded:
    """In memory, or in a file without a name, which goes with the process."""
    if len(records) * math.prod(shape) > IN_MEMORY:
        return _write(records, shape)
    skipped = _fill(file := io.BytesIO(), records, shape)
    pixels = np.frombuffer(file.getbuffer(), np.uint8).reshape(-1, *shape)
    return Decoded(torch.from_numpy(pixels), records.factors(), skipped)


def _write(records: Records, shape: tuple[int, int, int], folder: Path | None = None) -> Decoded:
    """Decode into a file, of a folder that is whole or not there if one is given."""
    (CACHE / "decoded").mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".", dir=CACHE / "decoded"))
    try:
        with open(stage / PIXELS, "w+b") as file:
            with suppress(OSError):  # where there are no locks, what a kill leaves stays
                _lock(file)
            if hasattr(os, "posix_fallocate"):  # a full disk says so now
                os.posix_fallocate(file.fileno(), 0, len(records) * math.prod(shape))
            skipped, factors = _fill(file, records, shape), records.factors()
            pixels, mapped = _pixels(file, shape)
            if folder is not None:
                facts = {
                    "skipped": skipped,
                    "factors": None if factors is None else factors.tolist(),
                }
                facts["sha256"] = checksum(pixels, mapped, facts)
                (stage / FACTS).write_text(json.dumps(facts))
                if not folder.exists():  # another process may have been as far
                    os.replace(stage, folder)
        return Decoded(torch.from_numpy(pixels), factors, skipped, mapped=mapped)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(file: Any, records: Records, shape: tuple[int, int, int]) -> list[str]:
    """Decode one image after the other into a file; what cannot be read is returned in words."""
    from tqdm import tqdm

    channels, height, width = shape
    skipped = []
    bar = {"desc": "decoding", "unit": " images", "delay": 2, "leave": False, "disable": None}
    for image in tqdm(records.decoded((height, width), channels), total=len(records), **bar):
        if isinstance(image, str):
            skipped.append(image)
        else:
            file.write(image.tobytes())
    file.truncate()
    return skipped


def _pixels(file: Any, shape: tuple[int, int, int]) -> tuple[np.ndarray, mmap.mmap | None]:
    """Images (N, C, H, W) in a file, and what they are mapped by, if they are too many to hold."""
    size = file.seek(0, os.SEEK_END) // math.prod(shape) * math.prod(shape)
    if size <= IN_MEMORY:
        file.seek(0)
        return np.fromfile(file, np.uint8, size).reshape(-1, *shape), None
    # Copy on write: torch wants an array that may be written to.
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, np.uint8).reshape(-1, *shape), mapped


def _read(folder: Path, shape: tuple[int, int, int]) -> Decoded:
    """What is kept in a folder; OSError if it cannot be read, or is not what was written."""
    try:
        facts = dict(json.loads((folder / FACTS).read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise OSError(f"{folder / FACTS} is damaged") from error
    with open(folder / PIXELS, "rb") as file:
        pixels, mapped = _pixels(file, shape)
    sha256 = facts.pop("sha256", None)
    if checksum(pixels, mapped, facts) != sha256:
        raise OSError(f"{folder} is damaged")
    factors = None if facts["factors"] is None else torch.tensor(facts["factors"])
    return Decoded(torch.from_numpy(pixels), factors, facts["skipped"], mapped=mapped)


def checksum(pixels: np.ndarray, mapped: mmap.mmap | None, facts: Any) -> str:
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
