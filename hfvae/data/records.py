"""The images of a split before they are pixels, decoded in parallel and within bounded memory."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Lock, Semaphore
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import printable
from ..images import MAX_PIXELS, read_header, to_bytes
from .base import Size

DEFAULT_SIZE = (64, 64)  # for images that do not all have one small size
UNIT = 2**20  # pixels, in which those that are being decoded are counted
UNITS = MAX_PIXELS // UNIT
_free, _turn = Semaphore(UNITS), Lock()
# An image's name, and a path, bytes, array or PIL image, or the error of why there is none.
Record = tuple[str, Any]


class Records:
    """Images that are read when they are asked for.

    Args:
        n: how many, at most.
        at: those of some numbers, which come in order.
        identity: changes when any image does; None where that is not known.
        whole: whether they are of both splits, so that some are yet to be held out.
    """

    label = ""  # what their name in the cache starts with; with it, even few are kept there
    licence: str | None = None  # for the card, as is the next
    credit = ""
    drawn: Any = None  # what draws any combination of their factors, see `hfvae.data.drawn`

    def __init__(
        self,
        n: int,
        at: Callable[[Sequence[int]], Iterator[Record]],
        identity: str | None = None,
        whole: bool = False,
    ) -> None:
        self.n, self.at, self.identity, self.whole = n, at, identity, whole

    def __len__(self) -> int:
        return self.n

    def some(self, chosen: Sequence[int]) -> "Records":
        """Those of these numbers."""
        sha = hashlib.sha256(np.asarray(chosen, np.int64).tobytes()).hexdigest()
        identity = self.identity and f"{self.identity} {sha}"
        return Records(len(chosen), lambda numbers: self.at([chosen[i] for i in numbers]), identity)

    def factors(self) -> Tensor | None:
        """int64 (N, K) of those that can be read, where they are known."""
        return None

    def fitting(self) -> tuple[Size, int]:
        """The size and the channels that suit about 64 of them, spread over a set that may be
        sorted."""
        sizes: Counter[Size] = Counter()
        grey = True
        for _, source in self.at(range(0, self.n, max(1, self.n // 64))):
            try:
                image = opened(source)
                image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            except Exception:  # decoding will name it
                continue
            sizes[image.height, image.width] += 1
            grey &= image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
        own = next(iter(sizes)) if len(sizes) == 1 else DEFAULT_SIZE
        fits = min(own) >= 8 and max(own) <= 128
        return own if fits else DEFAULT_SIZE, 1 if grey and sizes else 3

    def decoded(self, size: Size, channels: int) -> Iterator[np.ndarray | str]:
        """Each as uint8 (C, H, W), or "name: reason" if it cannot be read."""
        decode = partial(_decode, size, channels)
        records = iter(self.at(range(self.n)))
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            while chunk := list(islice(records, 1024)):
                yield from pool.map(decode, chunk)


def _decode(size: Size, channels: int, record: Record) -> np.ndarray | str:
    name, source = record
    try:
        image = opened(source)
        with _share(math.prod(image.size if isinstance(image, Image.Image) else image.shape[:2])):
            pixels = to_bytes(image, size, channels)
            del image  # before the next one is opened
        return pixels
    except Exception as error:  # decoders fail in many ways, and one picture must not stop a run
        return f"{printable(name)}: {printable(error) or type(error).__name__}"


@contextmanager
def _share(pixels: int) -> Generator[None]:
    """Threads work at once on images that have at most MAX_PIXELS together."""
    units = min(UNITS, 1 + pixels // UNIT)  # an array can be larger, and is then alone
    with _turn:
        for _ in range(units):
            _free.acquire()
    try:
        yield
    finally:
        _free.release(units)


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
