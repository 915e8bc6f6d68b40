"""Where the files of a model come from: a folder here, or one commit of a repository."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import HubError, expand
from .files import CONFIG, WEIGHTS, build, read_config, read_weights
from .remote import Repository

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def source_of(repo_or_dir: str | Path, **kwargs: Any) -> "Folder | Repository":
    """Where the files of a model come from; see `from_pretrained` and `Repository`."""
    if is_path(repo_or_dir):
        return Folder(expand(repo_or_dir))
    return Repository(str(repo_or_dir), **kwargs)


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
    path = source.get(CONFIG)
    with source.reading():
        config, custom, settings = read_config(path, source.name, families)
    found = families[config.model_type]
    if family is not None and not issubclass(found, family):
        raise HubError(
            f"{source.name} holds a {found.__name__} ({config.model_type}), not a "
            f"{family.__name__}; hfvae.from_pretrained(...) picks the class"
        )
    model = build(found, config, custom, encoder, decoder, source.name)
    if check is not None:
        check(model)
    try:
        weights = source.get(WEIGHTS)
    except FileNotFoundError as error:
        pickled = [name for name in source.names() if name.endswith(PICKLED)]
        if not pickled:
            raise
        raise FileNotFoundError(
            f"{source.name} has no {WEIGHTS}, only {', '.join(pickled):.200}: pickled weights can "
            "run code and are never read"
        ) from error
    with source.reading():
        read_weights(weights, settings, model, source.name)
    return model.to(device=device, dtype=dtype).eval()
