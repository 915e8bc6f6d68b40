"""The whole state of a training run as a folder: safetensors and JSON, no pickle.

checkpoint-000500/state.safetensors holds weights, moving averages, the optimizer's moments and the
states of the random generators; state.json the stage, the steps and seconds, the batch sizes,
threads and flags, what the images were, and a SHA-256 of all of that. A folder is written beside
its place and renamed, so it is whole or not there.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import HubError, quoted
from ..hub.files import check_header, digest, write_folder
from .errors import TrainingError

TENSORS, NUMBERS = "state.safetensors", "state.json"
NAME = "checkpoint-{:06d}"
MAX_NUMBERS_BYTES = 1_000_000
MAX_TENSORS = 20_000  # for which there is room in a header


class State(NamedTuple):
    """What a checkpoint holds: tensors by name, and numbers that JSON can hold."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with a prefix, without it."""
        start = f"{prefix}."
        return {n[len(start) :]: t for n, t in self.tensors.items() if n.startswith(start)}


def write(folder: Path, step: int, state: State, limit: int) -> None:
    """Write a checkpoint into an output folder and remove the oldest beyond the limit."""
    target = folder / NAME.format(step)
    if target.exists():
        return  # the one that this run went on from
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.tensors.items()}
    numbers = state.numbers | {"sha256": seal(State(tensors, state.numbers))}
    files = {TENSORS: save(tensors), NUMBERS: json.dumps(numbers, indent=2).encode()}
    write_folder(target, files)
    for old in existing(folder)[:-limit]:
        shutil.rmtree(old, ignore_errors=True)


def seal(state: State) -> str:
    """SHA-256 of all that decides how a training goes on."""
    numbers = json.dumps(state.numbers, sort_keys=True)
    return hashlib.sha256(f"{numbers} {digest(state.tensors)}".encode()).hexdigest()


def write_model(folder: Path, files: Mapping[str, bytes]) -> None:
    """`write_folder`, for which all checkpoints but the newest go if the disk is full.

    Raises:
        TrainingError: it is full even so.
        OSError: it cannot be written to.
    """
    try:
        write_folder(folder, files)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = existing(folder)
        for old in kept[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        try:
            write_folder(folder, files)
        except OSError as again:
            then = (
                f"--resume_from_checkpoint latest goes on from {kept[-1]}"
                if kept
                else "train again"
            )
            raise TrainingError(
                f"the disk is full, so nothing could be saved to {folder}: make room; then {then}"
            ) from again


def remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints that a run which was killed was writing.

    What it left of the model goes when the next one is saved there.
    """
    for left in folder.glob(".checkpoint-*.saving*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove all of them: of a run that is done, or that a new one replaces."""
    for old in existing(folder):
        shutil.rmtree(old, ignore_errors=True)


def existing(folder: Path) -> list[Path]:
    """The checkpoints in an output folder, the oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def read(folder: Path) -> State:
    """A checkpoint.

    Raises:
        FileNotFoundError: there is none.
        HubError: it is damaged.
    """
    if not (folder / NUMBERS).is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {NUMBERS}")
    try:
        if (folder / NUMBERS).stat().st_size > MAX_NUMBERS_BYTES:
            raise ValueError(f"{NUMBERS} is larger than {MAX_NUMBERS_BYTES:,} bytes")
        check_header(folder / TENSORS, MAX_TENSORS, TENSORS)
        numbers = {**json.loads((folder / NUMBERS).read_text("utf-8"))}
        sha256 = numbers.pop("sha256")
        state = State(load((folder / TENSORS).read_bytes()), numbers)
        if sha256 != seal(state):
            raise ValueError("its SHA-256 is another one")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        why = quoted(error)
        raise HubError(f"the checkpoint {folder} is damaged ({why}): use an older one") from error
    return state


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by the number of its parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, of in state.items() for name, value in of.items()}


def set_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put back what `moments` gave, in the memory layout of the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in saved.items():
        number, _, key = name.partition(".")
        p = parameters[int(number)]
        kept = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value)
        optimizer.state[p][key] = kept.copy_(value)
