"""Saving and loading models: folders on disk and repositories on the Hugging Face Hub."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import __version__
from .card import render_card
from .errors import HubError
from .models import BaseAutoencoder
from .storage import CONFIG, WEIGHTS, build, model_files, read_config, read_weights, write_folder

CARD = "README.md"
PICKLES = ("pytorch_model.bin", "model.pt", "model.bin", "model.ckpt", "model.pkl")


def save_pretrained(model: BaseAutoencoder, directory: str | Path) -> None:
    """Write config.json, model.safetensors and, where there is none, README.md to a folder."""
    folder = Path(directory)
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
    dtype: torch.dtype | None = None,
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
        dtype: what its floats become; as stored by default.
        encoder, decoder: the custom parts that the model was made with, if it was.

    Raises:
        HubError: what was found is no model, or not a sound one; the message says which.
        FileNotFoundError: no such folder or repository, or a file is missing there.
    """
    get, where = (
        _folder(Path(repo_or_dir))
        if _is_path(repo_or_dir)
        else _repository(
            str(repo_or_dir), revision, token, cache_dir, force_download, local_files_only
        )
    )
    config, custom, settings = read_config(get(CONFIG), where)
    model = build(config, custom, encoder, decoder, where)
    read_weights(get(WEIGHTS), settings, model, where)
    return model.to(device=device, dtype=dtype).eval()


def _is_path(name: str | Path) -> bool:
    text = str(name)
    return (
        isinstance(name, Path)
        or Path(text).expanduser().is_dir()
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") != 1
    )


def _folder(folder: Path) -> tuple[Callable[[str], Path], str]:
    folder = folder.expanduser()

    def get(name: str) -> Path:
        path = folder / name
        if path.is_file():
            return path
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if name == WEIGHTS and (pickles := [p for p in PICKLES if (folder / p).exists()]):
            raise FileNotFoundError(
                f"{folder} has no {WEIGHTS}, only {', '.join(pickles)}: pickled weights can run "
                "code and are never read"
            )
        raise FileNotFoundError(f"{folder} has no {name}")

    return get, str(folder)


def _repository(
    repo: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    force_download: bool,
    local_files_only: bool,
) -> tuple[Callable[[str], Path], str]:
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi(token=token, library_name="hfvae", library_version=__version__)
    with _in_words(repo, revision, api.endpoint):  # one commit for both files, whoever pushes
        commit = api.resolve_revision(
            repo, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )

    def get(name: str) -> Path:
        with _in_words(repo, revision, api.endpoint, name):
            path = hf_hub_download(
                repo,
                name,
                revision=commit,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                library_name="hfvae",
                library_version=__version__,
            )
        return Path(path)

    return get, repo


@contextmanager
def _in_words(
    repo: str, revision: str | None, endpoint: str, name: str = "this model"
) -> Generator[None]:
    """What the Hub's client raises, told apart in a sentence each."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise FileNotFoundError(f"{repo!r} is neither a folder nor a repository id") from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: ask for access on its page, then hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder and no Hub repository {repo}, or it is private and this token "
            "may not read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no revision {revision!r}") from error
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError) as error:
        raise HubError(
            f"there is no folder {repo}, {name} is not in the cache, and the Hub cannot be reached "
            f"at {endpoint}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no {name}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HubError(f"the Hub at {endpoint} answered {status} for {repo}") from error
