"""Pictures to tensors and back: the same preprocessing in training, in Python and in the demo."""

import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # others may start programs, as EPS does
# Of a file: opening, turning and laying on white takes up to 16 bytes for each, of WebP 24.
MAX_PIXELS = 2**26
MAX_BYTES = 2**29  # of a file
GAP = 2  # white pixels between the images of a grid


def regular(path: str | Path) -> str | Path:
    """A path that can be read to its end: of a file, and not of a pipe or a device.

    Raises:
        OSError: it is of something else, or of nothing.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return path


def read_header(source: Any) -> Image.Image:
    """A path or file as an image that is not decoded yet. What is read of files is bounded here.

    Raises:
        OSError: the file is missing, no image, or too large.
    """
    if isinstance(source, (str, Path)) and os.stat(regular(source)).st_size > MAX_BYTES:
        raise OSError(f"the file has more than {MAX_BYTES:,} bytes")
    try:
        image = Image.open(source, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise OSError(f"no image that can be read ({', '.join(FORMATS)})") from error
    if (pixels := image.width * image.height) > MAX_PIXELS:
        raise OSError(f"the image has {pixels:,} pixels, and at most {MAX_PIXELS:,} are opened")
    return image


def open_image(source: Any) -> Image.Image:
    """A path, file or array as a decoded PIL image, turned upright as its EXIF says.

    Raises:
        OSError: the file is missing, no image, too large, or cut short.
        ValueError, TypeError: an array of a shape or dtype that is no image.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    image = source if isinstance(source, Image.Image) else read_header(source)
    image.load()  # here, so that a truncated file fails here
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return image if upright else ImageOps.exif_transpose(image)


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """8 bits a channel, 1, 3 or 4 of them; transparency is put on white unless it is kept."""
    if image.mode.startswith("I;16"):
        image = _from_array(np.asarray(image, dtype=np.uint16))
    elif image.mode in ("I", "F"):  # 16-bit PNGs in older Pillow, and floats of scientific TIFFs
        values = np.array(image, dtype=np.float64)
        top = 65535 if image.mode == "I" else max(1.0, float(np.nanmax(values)))
        np.nan_to_num(values, copy=False)
        values /= top  # in place, because there may be many
        values *= 255
        image = Image.fromarray(values.clip(0, 255, out=values).astype(np.uint8))
    if image.has_transparency_data and channels != 4:
        if image.mode != "RGBA":
            image = image.convert("RGBA")  # older Pillow copies even what is RGBA
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Short side resized with antialiasing, then the centre cropped, to (height, width)."""
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)


def to_bytes(source: Any, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image in any form -> uint8 (C, H, W).

    Raises:
        OSError, ValueError, TypeError: see `open_image`; or a channel count that needs an array.
    """
    if channels not in MODES:
        return _many_channels(source, size, channels)
    pixels = np.asarray(fit(to_mode(open_image(source), channels), size))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def preprocess(images: Any, size: tuple[int, int], channels: int) -> Tensor:
    """PIL image, path, array, tensor, batches or a list of them -> float (B, C, H, W) in [0, 1].

    EXIF rotation is applied, transparency put on white, 16-bit and palette images read right; the
    short side is resized with antialiasing and the centre cropped. Arrays are (H, W), (H, W, C) or
    (B, H, W, C), tensors (C, H, W) or (B, C, H, W): uint8, uint16, or float in [0, 1]. A tensor of
    floats that has the size and the channels already stays as it is, to the last bit.

    Raises:
        OSError: a file is missing, no image, or cut short.
        ValueError, TypeError: an array or a tensor that is no image.
    """
    found = [_to_tensor(image, size, channels) for image in _each(images)]
    if not found:
        raise ValueError("no images given")
    return torch.stack(found)


def _each(images: Any) -> Iterator[Any]:
    """One image after the other, of lists and batches."""
    if isinstance(images, (list, tuple)) or (
        isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
    ):
        for image in images:
            yield from _each(image)
    else:
        yield images


def _to_tensor(source: Any, size: tuple[int, int], channels: int) -> Tensor:
    """One image in any form -> float (C, H, W) in [0, 1]."""
    if isinstance(source, Tensor):
        if source.ndim != 3:
            raise ValueError(
                f"expected a tensor (C, H, W) or (B, C, H, W), got {tuple(source.shape)}"
            )
        x = source.detach().cpu()
        if x.is_floating_point():
            x = x.float()
            _check_unit_range(x.numpy())
            if x.shape == (channels, *size):
                return x
        source = x.permute(1, 2, 0).numpy()
    return torch.tensor(to_bytes(source, size, channels)).float() / 255


def to_pil(x: Tensor) -> list[Image.Image]:
    """(B, C, H, W) or (C, H, W) in [0, 1] -> PIL images; C is 1, 3 or 4."""
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] not in MODES:
        raise ValueError(f"expected (B, C, H, W) with 1, 3 or 4 channels, got {tuple(x.shape)}")
    pixels = (x.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    arrays = pixels.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a[..., 0] if a.shape[2] == 1 else a) for a in arrays]


def grid(x: Tensor | Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Images (B, C, H, W) in [0, 1] as one picture, `columns` in a row.

    If None, up to eight stand in one row, and more in a square.
    """
    images = to_pil(x) if isinstance(x, Tensor) else list(x)
    if not images:
        raise ValueError("no images given")
    columns = columns or (len(images) if len(images) <= 8 else math.ceil(math.sqrt(len(images))))
    w, h = images[0].width + GAP, images[0].height + GAP
    rows = math.ceil(len(images) / columns)
    sheet = Image.new(images[0].mode, (columns * w - GAP, rows * h - GAP), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * w, i // columns * h))
    return sheet


def first_row(picture: Image.Image, size: tuple[int, int]) -> list[Image.Image]:
    """The images (height, width) in the first row of a `grid` that may have been enlarged.

    They come out as they went in; [] if the picture is no such grid, or one that was smoothed.
    """
    pixels, (h, w) = np.asarray(picture), size
    for factor in range(picture.width // w, 0, -1):  # the largest that fits the pixels
        small = pixels[::factor, ::factor]
        if any((n + GAP) % (side + GAP) for n, side in zip(small.shape, size, strict=False)):
            continue
        gaps = [small[h + i :: h + GAP] for i in range(GAP)]
        gaps += [small[:, w + i :: w + GAP] for i in range(GAP)]
        enlarged = small.repeat(factor, 0).repeat(factor, 1)
        if np.array_equal(enlarged, pixels) and all((gap == 255).all() for gap in gaps):
            starts = range(0, small.shape[1], w + GAP)
            return [Image.fromarray(small[:h, x : x + w]) for x in starts]
    return []


def _from_array(array: np.ndarray) -> Image.Image:
    array = _as_uint8(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in MODES):
        raise ValueError(
            f"expected an array (H, W), (H, W, 1|3|4) or a batch (B, H, W, C), got {array.shape}"
        )
    return Image.fromarray(array)


def _as_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array // 257).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        _check_unit_range(array)
        return (array * 255).round().astype(np.uint8)
    raise TypeError(f"arrays must be uint8, uint16 or float in [0, 1], not {array.dtype}")


def _check_unit_range(array: np.ndarray) -> None:
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN is not
        raise ValueError(
            f"floats must be in [0, 1], not {array.min():.4g} to {array.max():.4g}: divide 8-bit "
            "values by 255, and bring [-1, 1] there by (x + 1) / 2"
        )


def _many_channels(array: Any, size: tuple[int, int], channels: int) -> np.ndarray:
    """Channel counts that no image file has: every channel by itself."""
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(f"a model of {channels} channels takes arrays (H, W, {channels})")
    bands = [fit(Image.fromarray(band), size) for band in _as_uint8(array).transpose(2, 0, 1)]
    return np.stack([np.asarray(band) for band in bands])
