"""Anything that `datasets` reads without running code: parquet files, data sets of the Hub."""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import NEEDS_TRAIN, expand
from .base import HELD_OUT, DataError, Request, Source
from .records import Record, Records


class ParquetFile(Source):
    def has(self, dataset: str) -> bool:
        return expand(dataset).is_file()

    def records(self, asked: Request) -> Records:
        path = expand(asked.dataset)
        if path.suffix != ".parquet":
            raise DataError(f"{path} is a file; give a folder of images or a parquet file")
        return table("parquet", asked, path.parent, data_files=str(path))


class HubSet(Source):
    """`owner/name` on the Hub."""

    streams = True

    def has(self, dataset: str) -> bool:
        return dataset.count("/") == 1 and not dataset.startswith((".", "/", "~"))

    def records(self, asked: Request) -> Records:
        if not asked.streaming:
            return table(asked.dataset, asked)
        rows, column, has_split = _rows(asked.dataset, asked, streaming=True)
        splits, most = rows.info.splits or {}, asked.max_samples
        known = splits[rows.split].num_examples if rows.split in splits else None
        total = min(n for n in (known, most, math.inf) if n)
        if total == math.inf:
            raise DataError(
                f"{asked.dataset} does not say how many images it has: say how many to take with "
                "--max_train_samples"
            )
        n = held_out = max(1, round(HELD_OUT * total))
        if has_split:
            n = total if asked.split == "train" or not most else held_out
        elif asked.split == "train":
            rows, n = rows.skip(held_out), total if total == most else total - held_out
        places = _places(asked.dataset)

        def first(numbers: Sequence[int]) -> Iterator[Record]:
            for i, row in enumerate(islice(rows, len(numbers))):
                yield _cell(i, row[column], places)

        return Records(int(n), first)


def table(source: str, asked: Request, folder: Path | None = None, **kwargs: Any) -> Records:
    """The images of a data set in a folder, or of the Hub if there is none."""
    rows, column, has_split = _rows(source, asked, **kwargs)
    places = _places(source, folder)
    return Records(
        len(rows),
        lambda numbers: (_cell(i, rows[i][column], places) for i in numbers),
        f"{rows._fingerprint} {column}",
        whole=not has_split,
    )


def _rows(source: str, asked: Request, **kwargs: Any) -> tuple[Any, str, bool]:
    """The rows of one split, the column of images, and whether the source has a test split."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"this data set {NEEDS_TRAIN}") from error

    try:
        splits: Any = datasets.load_dataset(source, **kwargs)
    except Exception as error:  # every cause of `datasets` is its own class; all mean this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot load the data set {asked.dataset}: {reason:.300}") from error
    test = next((s for s in ("test", "validation", "val") if s in splits), None)
    train = (
        "train" if "train" in splits else next(s for s in splits if s != test or len(splits) == 1)
    )
    has_split = test is not None and test != train
    rows = splits[test if asked.split == "test" and has_split else train]
    images = [c for c, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    column = asked.image_column or next(iter(images), "")
    if column not in images:
        raise DataError(
            f"{asked.dataset} has no image column{f' {column!r}' if column else ''}; its image "
            f"columns: {', '.join(images) or 'none'}; all: {', '.join(rows.features)}"
        )
    if isinstance(rows, datasets.IterableDataset):
        return rows.decode(False), column, has_split
    rows = rows.select_columns(column).cast_column(column, datasets.Image(decode=False))
    return rows, column, has_split


def _places(source: str, folder: Path | None = None) -> tuple[str, ...]:
    """Where a table's images may lie if not in the table itself.

    A cell may name any path: without this, a data set from the Hub could read the files of whoever
    trains on it. Every place ends with a separator, so that no other one starts with its name.
    """
    from datasets import config
    from huggingface_hub import constants

    if folder:
        return (os.path.join(folder.resolve(), ""),)
    cached = Path(constants.HF_HUB_CACHE) / f"datasets--{source.replace('/', '--')}"
    extracted = Path(config.HF_DATASETS_CACHE) / "downloads"
    local = (os.path.join(place.resolve(), "") for place in (cached, extracted))
    return f"hf://datasets/{source}@", *local


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
