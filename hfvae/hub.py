"""Saving, loading and publishing models: folders on disk and repositories on the Hugging Face Hub.

python -m hfvae.hub runs/photos-vae owner/name     # publishes a folder that train.py left
"""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .card import CARD, addressed, render_card
from .errors import expand
from .models import BaseAutoencoder
from .remote import Repository, commit, has_weights, make_repository
from .storage import CONFIG, WEIGHTS, build, model_files, read_config, read_weights, write_folder

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# What train.py leaves beside the model, and what a model repository holds of a folder.
MEASURED = ("evaluation.json", "train_config.json", "samples.png", "reconstructions.png")
PUBLISHED = (CONFIG, WEIGHTS, CARD, *MEASURED)


def save_pretrained(model: BaseAutoencoder, directory: str | Path) -> None:
    """Write config.json, model.safetensors and, where there is none, README.md to a folder."""
    folder = expand(directory)
    files = model_files(model)
    if not (folder / CARD).exists():
        name = folder.resolve().name
        files[CARD] = render_card(model.config, name=name, custom_parts=model.custom_parts).encode()
    write_folder(folder, files)


def from_pretrained(
    repo_or_dir: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Any:
    """The model in a folder or a Hub repository, of the right family, in eval mode.

    Args:
        repo_or_dir: a folder, or `owner/name` on the Hub. An existing folder wins.
        revision: branch, tag or commit of the repository.
        token: Hub token; by default the one that `hf auth login` saved.
        cache_dir: where downloads are kept.
        force_download: fetch again what is in the cache.
        local_files_only: make no request, use the cache.
        device: where the model goes; the CPU by default.
        dtype: what its floats become; float32 by default, in whatever they are stored.
        encoder, decoder: the custom parts that the model was made with, if it was.

    Raises:
        HubError: what was found is no model, or not a sound one; the message says which.
        FileNotFoundError: no such folder or repository, or a file is missing there.
    """
    source = source_of(
        repo_or_dir,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    return load(source, device=device, dtype=dtype, encoder=encoder, decoder=decoder)


def source_of(repo_or_dir: str | Path, **kwargs: Any) -> "_Folder | Repository":
    """Where the files of a model come from; see `from_pretrained` and `Repository`."""
    if is_path(repo_or_dir):
        return _Folder(expand(repo_or_dir))
    return Repository(str(repo_or_dir), **kwargs)


def load(
    source: "_Folder | Repository",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Any:
    """The model in a folder or a repository; see `from_pretrained`."""
    path = source.get(CONFIG)
    with source.reading():
        config, custom, settings = read_config(path, source.name)
    model = build(config, custom, encoder, decoder, source.name)
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


class _Folder:
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


def push_to_hub(
    model: BaseAutoencoder,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload model",
) -> str:
    """Publish a model as one commit, in a repository that is made if it is missing.

    A card that nobody edited is replaced, and what was measured of the model before is removed.

    Args:
        model: any family.
        repo_id: `owner/name`, or a name of one's own.
        private: of a new repository; the account's default if None.
        token: Hub token; by default the one that `hf auth login` saved.
        revision: branch, made if it is missing; main by default.
        create_pr: propose the commit instead of making it.
        commit_message: its title.

    Returns:
        The address of the commit or of the pull request.

    Raises:
        HubError: no token, no write access, or no connection; the message says which.
    """
    files = model_files(model)
    repo = make_repository(repo_id, private=private, token=token)
    stale: tuple[str, ...] = ()
    if not has_weights(repo, files[WEIGHTS], token=token, revision=revision):
        name = repo.partition("/")[2]
        card = render_card(model.config, name=name, repo=repo, custom_parts=model.custom_parts)
        files[CARD], stale = card.encode(), MEASURED
    return commit(
        repo,
        files,
        commit_message,
        delete=stale,
        token=token,
        revision=revision,
        create_pr=create_pr,
    )


def push_folder(folder: Path, repo_id: str, *, private: bool | None = None) -> str:
    """Publish what train.py left in a folder as one commit: model, card, pictures and numbers.

    A card that a person edited on the Hub stays.

    Returns:
        The address of the commit.

    Raises:
        HubError, FileNotFoundError: the folder holds no model; or see `push_to_hub`.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {missing[0]}")
    repo = make_repository(repo_id, private=private)
    return commit(repo, published_files(folder, repo), "Upload model")


def published_files(folder: Path, repo: str) -> dict[str, bytes]:
    """What a model repository, or a Space, holds of a folder; the card's snippet loads `repo`."""
    files = {name: (folder / name).read_bytes() for name in PUBLISHED if (folder / name).exists()}
    if CARD in files:
        files[CARD] = addressed(files[CARD].decode("utf-8", errors="replace"), repo).encode()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hfvae.hub", description="Publish a folder that train.py left on the Hub."
    )
    parser.add_argument("folder", type=expand)
    parser.add_argument("repo_id", help="owner/name")
    parser.add_argument("--private", action="store_true", default=None)
    args = parser.parse_args()
    try:
        print(push_folder(args.folder, args.repo_id, private=args.private))
    except OSError as error:
        print(f"hub: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
