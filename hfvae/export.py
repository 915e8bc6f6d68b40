"""The page without a server (hfvae/web) that shows some models."""

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import HubError, expand
from .hub import CARD, WEIGHTS, check_output, is_path, load, source_of, write_folder
from .hub.card import addressed
from .images import MODES, first_row, grid, open_image, to_mode
from .models import FAMILIES
from .web.page import FILES, MAX_WEIGHTS, PICTURES, page

MODELS = "pretrained"  # where a Space keeps models that are not on the Hub


def export(path: str | Path, models: Sequence[str]) -> Path:
    """Write the page with some models inside, which any browser opens; see `page_of`.

    A file that is there is replaced once the new one is whole.

    Raises:
        OSError: it cannot be written there, or see `page_of`.
    """
    target = expand(path)
    check_output(target)
    write_folder(target.resolve().parent, {target.name: page_of(models).encode()})
    return target


def page_of(models: Sequence[str], hub: str | None = None) -> str:
    """The page in HTML.

    Args:
        models: folders, which go inside, or ids on the Hub.
        hub: where visitors fetch the latter; if None, they go inside as well.

    Raises:
        HubError, FileNotFoundError: a model cannot be loaded, or visitors may not fetch it, or it
            is none that a page can show.
    """
    shown: dict[str, dict[str, bytes] | None] = {}
    for model, place in places(models).items():
        fetched = hub is not None and not is_path(model)
        try:
            source = source_of(model, **({"token": False} if fetched else {}))
        except (HubError, FileNotFoundError) as error:
            words = "visitors of a static Space fetch models without a token: " if fetched else ""
            raise type(error)(f"{words}{error}") from error
        config = load(source, FAMILIES).config
        size = source.get(WEIGHTS).stat().st_size
        if size > MAX_WEIGHTS:
            limit = f"a page shows models of up to {MAX_WEIGHTS / 1e6:.0f} MB"
            raise HubError(f"{model} has {size / 1e6:.0f} MB; {limit}")
        if config.channels not in MODES:
            raise HubError(f"{model}: no picture has {config.channels} channels")
        name = place.removeprefix(f"{MODELS}/") if is_path(model) else model
        shown[name] = None if fetched else _inside(source, name, config)
    return page(shown, hub)


def places(models: Sequence[str]) -> dict[str, str]:
    """Where a Space finds each model: its id, or a folder with a name of its own."""
    found: dict[str, str] = {}
    for model in models:
        name = re.sub(r"[^\w.-]+", "-", expand(model).resolve().name, flags=re.ASCII)
        place, n = f"{MODELS}/{name}", 1
        while place in found.values():
            place, n = f"{MODELS}/{name}-{n + 1}", n + 1
        found[model] = place if is_path(model) else model
    return found


def _inside(source: Any, name: str, config: Any) -> dict[str, bytes]:
    """The files of a model that go into a page; of its pictures, the held-out images."""
    files: dict[str, bytes] = {}
    for file in FILES:
        with suppress(FileNotFoundError):
            files[file] = source.get(file).read_bytes()
    if CARD in files:
        files[CARD] = addressed(files[CARD].decode("utf-8", errors="replace"), name).encode()
    if rows := files.pop(PICTURES, None):
        with suppress(OSError):  # one that is damaged
            rows = to_mode(open_image(io.BytesIO(rows)), config.channels)
            if images := first_row(rows, config.size):
                grid(images).save(file := io.BytesIO(), "PNG", optimize=True)
                files[PICTURES] = file.getvalue()
    return files
