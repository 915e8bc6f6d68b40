"""Saving and publishing: a model, or a folder that train.py left."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import expand
from .card import CARD, addressed, render_card
from .files import CONFIG, PATIENCE, WEIGHTS, model_files, saving, write_folder
from .lock import locked
from .remote import commit, has_weights, make_repository

# What train.py leaves beside the model, and what a model repository holds of a folder.
MEASURED = ("evaluation.json", "train_config.json", "samples.png", "reconstructions.png")
PUBLISHED = (CONFIG, WEIGHTS, CARD, *MEASURED)


def save_pretrained(model: Any, directory: str | Path) -> None:
    """Write config.json, model.safetensors and, where there is none, README.md to a folder.

    Nothing is left half-written: a model that was there stays whole until the new one is.
    """
    folder = expand(directory)
    files = model_files(model)
    if not (folder / CARD).exists():
        name = folder.resolve().name
        files[CARD] = render_card(model.config, name=name, custom_parts=model.custom_parts).encode()
    write_folder(folder, files)


def push_to_hub(
    model: Any,
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
    # Nobody saves there meanwhile; who may not write there cannot keep others from it.
    writable = os.access(folder, os.W_OK)
    with locked(saving(folder.resolve()), PATIENCE) if writable else nullcontext():
        files = {n: (folder / n).read_bytes() for n in PUBLISHED if (folder / n).exists()}
    if CARD in files:
        files[CARD] = addressed(files[CARD].decode("utf-8", errors="replace"), repo).encode()
    return files
