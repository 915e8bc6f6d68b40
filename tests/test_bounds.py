"""What a data set may do to a training: nothing but be read, in bounded time and memory."""

import gzip
import json
import os
import resource
import struct
import subprocess
import sys
import tracemalloc
import zlib

import datasets
import numpy as np
import pyarrow
import pytest
from PIL import EpsImagePlugin, Image
from pyarrow import parquet

from hfvae.data import DataError, cache, load_images

pytestmark = pytest.mark.quick


def photograph(seed=0, size=16):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    """Eight images to train on, in a folder that has others to test on beside it."""
    for split, n in [("test", 2), ("train", 8)]:
        folder = tmp_path / "photos" / split
        folder.mkdir(parents=True)
        for i in range(n):
            photograph(i).save(folder / f"{i}.png")
    return folder


def loaded(train):
    """How many images are read, and what is skipped."""
    images = load_images(str(train.parent))
    return len(images), [words.removeprefix("train/") for words in images.skipped]


def test_a_table_reads_no_file_of_a_folder_whose_name_begins_like_its_own(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d-private").mkdir()
    photograph().save(tmp_path / "d-private" / "secret.png")
    paths = []
    for i in range(19):
        photograph(i).save(tmp_path / "d" / f"{i}.png")
        paths.append(str(tmp_path / "d" / f"{i}.png"))
    paths.append(str(tmp_path / "d-private" / "secret.png"))
    cells = [{"bytes": None, "path": path} for path in paths]
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    table = pyarrow.Table.from_pylist([{"image": cell} for cell in cells], schema)
    parquet.write_table(table, tmp_path / "d" / "train.parquet")
    both = [
        load_images(str(tmp_path / "d" / "train.parquet"), split) for split in ("train", "test")
    ]
    assert sum(map(len, both)) == 19
    (skipped,) = both[0].skipped + both[1].skipped
    assert "secret.png: not in the table, and its file is not in the data set" in skipped


def test_postscript_starts_no_program(photos, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    photograph().save(photos / "x.eps")
    (photos / "x.eps").rename(photos / "x.png")
    words = "x.png: no image that can be read (PNG, JPEG, WEBP, BMP, GIF, TIFF)"
    assert loaded(photos) == (8, [words])
    assert not (tmp_path / "started").exists()


def test_names_need_not_be_utf8(photos, tmp_path, monkeypatch, train_py):
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "WORTH_KEEPING", 1)
    strange = os.fsencode(photos)
    for i, name in enumerate([b"\xff.png", b"\xfe.png"]):
        os.rename(photos / f"{i}.png", strange + b"/" + name)
    with open(strange + b"/bad\xff.png", "wb"):
        pass
    assert loaded(photos) == (8, [r"bad\udcff.png: no image that can be read ("
                                  "PNG, JPEG, WEBP, BMP, GIF, TIFF)"])  # fmt: skip
    argv = ["--max_train_steps", "1", "--train_batch_size", "4"]
    words = train_py("--dataset", photos.parent, "--output_dir", tmp_path / "out", *argv)
    assert r"skipped train/bad\udcff.png: no image" in words
    os.rename(photos.parent, os.fsencode(tmp_path) + b"/\xff")
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert load_images(folder).name == r"\udcff"
    words = train_py("--dataset", folder, "--output_dir", tmp_path / "b", *argv, status=2)
    assert words.startswith("train.py: --dataset must be UTF-8, not '/")


@pytest.mark.timeout(30)
def test_only_files_are_read(photos, tmp_path):
    os.mkfifo(photos / "x.png")
    (photos / "y.png").mkdir()
    (photos / "zero.png").symlink_to("/dev/zero")
    problem = "not a regular file"
    assert loaded(photos) == (8, [f"x.png: {problem}", f"zero.png: {problem}"])
    for make in (os.mkfifo, os.mkdir):
        (tmp_path / make.__name__).mkdir()
        for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
            make(tmp_path / make.__name__ / name)
            with pytest.raises(DataError, match=f"is damaged \\({problem}\\)"):
                load_images(str(tmp_path / make.__name__))
            (tmp_path / make.__name__ / name).rename(tmp_path / f"{make.__name__}-{name}")


def test_a_folder_that_cannot_be_listed_is_named(photos):
    """Nobody can list what lies too deep, not even root."""
    name, here = "deep" * 50, os.open(photos, os.O_RDONLY)
    for _ in range(25):  # of 200 letters, where paths have at most 4096
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    n, (skipped,) = loaded(photos)
    assert n == 8
    assert skipped.endswith("/: the folder cannot be read: File name too long")


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=f"{tmp_path} cannot be read: Permission denied"):
        load_images(str(tmp_path))


# IDX


def idx(folder, shape, data=b"", name="train-images-idx3-ubyte", opener=open):
    with opener(folder / name, "wb") as f:
        f.write(struct.pack(">4i", 0x803, *shape) + data)
    return str(folder)


@pytest.mark.parametrize("shape", [(-1, 8, 8), (2, -1, 8), (2, 8, -1), (-2, -8, 8), (0, 8, 8)])
def test_an_idx_file_of_odd_sizes_is_none(tmp_path, shape):
    with pytest.raises(DataError, match="is no IDX file of images"):
        load_images(idx(tmp_path, shape, bytes(128)))


@pytest.mark.parametrize("data", [bytes(127), bytes(129)])
def test_an_idx_file_holds_what_it_declares(tmp_path, data):
    with pytest.raises(DataError, match="is damaged .*fewer or more images than it declares"):
        load_images(idx(tmp_path, (2, 8, 8), data))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(DataError, match="is damaged .*no header"):
        load_images(str(tmp_path))


def test_an_idx_file_is_read_to_its_declared_size(tmp_path):
    packed = {"name": "train-images-idx3-ubyte.gz", "opener": gzip.open}
    (tmp_path / "much").mkdir()
    idx(tmp_path, (2, 8, 8), bytes(2**28), **packed)
    idx(tmp_path / "much", (4, 27_000, 27_000), bytes(1000), **packed)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more images than it declares"):
            load_images(str(tmp_path))
        words = "declares 2,916,000,000 bytes of images; at most 1,073,741,824 are read"
        with pytest.raises(DataError, match=words):
            load_images(str(tmp_path / "much"))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


# Large images


def black(path, side):
    """A PNG of so many pixels square, a thousandth as large."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    deflate = zlib.compressobj(1)
    row = bytes(1 + 3 * side)
    data = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


LOADED = """
import json, resource, sys
from hfvae.data import load_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = load_images(sys.argv[1], size=(16, 16), channels=3)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([len(images), taken * (1 if sys.platform == "darwin" else 1024), images.skipped]))
"""


def loaded_apart(train):
    """How many images are read, the bytes of memory that this takes, and what is skipped."""
    run = [sys.executable, "-c", LOADED, str(train.parent)]
    return json.loads(subprocess.run(run, capture_output=True, check=True).stdout)


def test_what_is_too_large_is_named(photos):
    black(photos / "a.png", 13_300)
    for name in "bcd":
        os.link(photos / "a.png", photos / f"{name}.png")
    n, taken, skipped = loaded_apart(photos)
    assert n == 8
    problem = "the image has 176,890,000 pixels, and at most 67,108,864 are opened"
    assert skipped == [f"train/{name}.png: {problem}" for name in "abcd"]
    assert taken < 2**26


def test_what_is_large_is_decoded_within_a_gigabyte(photos):
    black(photos / "a.png", 8_000)
    for name in "bcde":
        os.link(photos / "a.png", photos / f"{name}.png")
    n, taken, skipped = loaded_apart(photos)
    assert (n, skipped) == (13, [])
    assert taken < 2**30


def test_a_sparse_file_of_terabytes_is_named(photos):
    with open(photos / "x.webp", "wb") as f:
        f.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        f.truncate(2**34)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert loaded(photos) == (8, ["x.webp: the file has more than 536,870,912 bytes"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18
