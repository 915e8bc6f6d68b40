"""Where the files of a model come from: a folder here, or one commit of a repository."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import HubError, expand, quoted
from .files import CONFIG, WEIGHTS, check_values, read_config, read_weights, saving
from .remote import Repository

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PATIENCE = 2  # seconds in which a save that is under way must have put its files in place


def source_of(repo_or_dir: str | Path, **kwargs: Any) -> "Folder | Repository":
    """Where the files of a model come from; see `from_pretrained` and `Repository`."""
    if is_path(repo_or_dir):
        return Folder(expand(repo_or_dir))
    try:
        return Repository(str(repo_or_dir), **kwargs)
    except (HubError, FileNotFoundError) as error:
        # A folder whose name was mistyped, rather?
        path = expand(repo_or_dir)
        there = sorted(config.parent.name for config in path.parent.glob(f"*/{CONFIG}"))
        if not there:
            raise
        raise type(error)(
            f"{error}; the folder {path.parent} holds {quoted(', '.join(there))}"
        ) from error


class Folder:
    """What `Repository` is for the Hub."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        self.path, self.name = path, str(path)

    def get(self, file: str) -> Path:
        if not (self.path / file).is_file():
            raise FileNotFoundError(f"{self.path} has no {file}")
        return self.path / file

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def saves(self) -> tuple[bool, Any]:
        """Whether a save is under way, and something that every save changes."""
        busy = saving(self.path.resolve()).exists()
        found = [os.stat(p) for f in (CONFIG, WEIGHTS) if (p := self.path / f).exists()]
        return busy, [(s.st_ino, s.st_mtime_ns, s.st_size) for s in found]

    def names(self) -> list[str]:
        return [path.name for path in self.path.iterdir()]


def is_path(name: str | Path) -> bool:
    """Whether a name means a folder here; if not, it is `owner/name` on the Hub."""
    text = str(name)
    return (
        isinstance(name, Path)
        or expand(text).is_dir()
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") != 1
    )


def load(
    source: Folder | Repository,
    families: Mapping[str, type[Any]],
    *,
    family: type[Any] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    check: Callable[[Any], None] | None = None,
) -> Any:
    """The model in a folder or a repository, in eval mode; see `hfvae.from_pretrained`.

    Args:
        source: where its files are.
        families: the classes of models by their model_type.
        family: the one that is wanted; another is refused before its weights are fetched.
        device, dtype, encoder, decoder: see `hfvae.from_pretrained`.
        check: raises for a model, on the meta device yet, whose weights are not to be fetched.
    """
    until = time.monotonic() + PATIENCE
    while True:
        before = source.saves()
        try:
            model = _load(source, families, family, encoder, decoder, check)
            break
        except (HubError, FileNotFoundError):
            # One file of the old model and one of the new, which a save is putting in place?
            busy, now = source.saves()
            if not (busy or now != before[1]) or time.monotonic() > until:
                raise
        time.sleep(0.01)
    model.to(dtype=dtype)
    with source.reading():
        check_values(model, source.name)
    return model.to(device).eval()


def _load(
    source: Folder | Repository,
    families: Mapping[str, type[Any]],
    family: type[Any] | None,
    encoder: nn.Module | None,
    decoder: nn.Module | None,
    check: Callable[[Any], None] | None,
) -> Any:
    path = source.get(CONFIG)
    with source.reading():
        config, custom, settings = read_config(path, source.name, families)
    found = families[config.model_type]
    if family is not None and not issubclass(found, family):
        raise HubError(
            f"{source.name} holds a {found.__name__} ({config.model_type}), not a "
            f"{family.__name__}; hfvae.from_pretrained(...) picks the class"
        )
    for name, part in [("encoder", encoder), ("decoder", decoder)]:
        if name in custom and part is None:
            raise HubError(
                f"{source.name}: this model was made with its own {name}; "
                f"build one and load with {name}=..."
            )
    with torch.device("meta"):  # no memory for its own tensors yet
        model = found(config, encoder=encoder, decoder=decoder)
    if check is not None:
        check(model)
    try:
        weights = source.get(WEIGHTS)
    except FileNotFoundError as error:
        pickled = [name for name in source.names() if name.endswith(PICKLED)]
        if not pickled:
            raise
        raise FileNotFoundError(
            f"{source.name} has no {WEIGHTS}, only {quoted(', '.join(pickled))}: pickled weights "
            "can run code and are never read"
        ) from error
    with source.reading():
        read_weights(weights, settings, model, source.name)
    return model
