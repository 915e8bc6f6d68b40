"""The models of a demo: the operator's, and those on the Hub whose id a visitor types."""

import json
import math
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from ..base import BaseAutoencoder
from ..errors import HubError, expand
from ..hub import CARD, CONFIG, WEIGHTS, is_path, load, source_of
from ..hub.remote import Repository
from ..images import first_row, to_mode
from ..models import FAMILIES
from ..sprites import FACTORS
from .explorers import EXPLORERS
from .inputs import open_safely, words
from .scrubber import data_uri

EVALUATION = "evaluation.json"
PICTURES = ("samples", "reconstructions")  # .png, of which its card speaks
HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
MAX_DOWNLOAD = 200_000_000  # bytes of a visitor's model
MAX_TEXT = 100_000  # bytes of its card and its numbers
MAX_PICTURES = 10_000_000  # bytes of its pictures: with more, it is shown without them
LARGEST = 1024  # pixels a side of a picture beside its card
MAX_DIMS, MAX_CELLS = 512 * 512 * 3, 1024  # of their images and code grids: seconds, not hours
KEPT = 3  # models of visitors that stay loaded


class Entry:
    """A model and what lies beside it.

    Args:
        name: on the menu.
        source: its folder or its repository.
        device: where it goes.
        pictures: which of those beside it are shown, where they are there and sound.
    """

    def __init__(
        self, name: str, source: Any, device: str, pictures: Sequence[str] = PICTURES
    ) -> None:
        self.name = name
        # float32 whatever was stored: half precision is slow on a CPU.
        self.model: BaseAutoencoder = load(source, FAMILIES, device=device)
        if self.model.config.channels not in (1, 3, 4):
            raise HubError(f"{name}: no picture has {self.model.config.channels} channels")
        card = _text(source, CARD)
        if folder := getattr(source, "path", None):  # visitors see no path of this machine
            card = card.replace(str(folder.resolve()), name)
        found = {n: _picture(source, f"{n}.png", self.model.config.channels) for n in pictures}
        beside = {n: picture for n, picture in found.items() if picture is not None}
        self.card = describe(card, beside)
        # What it was not trained on, in the first row of its reconstructions.
        rows = beside.get("reconstructions")
        self.held_out = first_row(rows, self.model.config.size) if rows else []
        try:
            measured = dict(json.loads(_text(source, EVALUATION)))
        except (ValueError, TypeError, RecursionError):
            measured = {}
        # Of held-out images, where that was measured.
        self.usual_bits = _number(measured, "bits_per_dim")
        self.usual_psnr = _number(measured, "psnr")
        # What latents of sprites stand for, where that was measured.
        factors = {name: measured.get(f"latent_{name}") for name in FACTORS}
        self.explorer = EXPLORERS[self.model.bottleneck.view](self.model, factors)


class Models:
    """The models on the menu, by name, loaded when they are first used."""

    def __init__(self, sources: Sequence[str], *, allow_hub: bool = False, device: str = "cpu"):
        self.sources: dict[str, str] = {}
        for source in dict.fromkeys(sources):
            name = expand(source).resolve().name if is_path(source) else source
            shown, n = name, 1
            while shown in self.sources:
                shown, n = f"{name} {n + 1}", n + 1
            self.sources[shown] = source
        self.allow_hub, self.device = allow_hub, device
        self.own: dict[str, Entry] = {}
        self.visiting: OrderedDict[str, Entry] = OrderedDict()
        self.lock = threading.Lock()
        self.loading: dict[str, threading.Lock] = {}

    @property
    def names(self) -> list[str]:
        return list(self.sources)

    def __getitem__(self, name: str | None) -> Entry:
        """The entry of a name on the menu (None: the first), or of a Hub id.

        Raises:
            gradio.Error: no such model, in words for the visitor.
        """
        name = self.names[0] if name is None else name
        # The operator's own programs may say what the command line said.
        name = next((known for known, source in self.sources.items() if source == name), name)
        if name not in self.sources and not self._may_visit(name):
            more = ", or a Hub id like owner/name" if self.allow_hub else ""
            raise words(f"There is no such model here; there are: {', '.join(self.names)}{more}.")
        with self.lock:
            loading = self.loading.setdefault(name, threading.Lock())
        with loading:  # once, however many wait; other models do not wait
            try:
                return self._operators(name) if name in self.sources else self._visitors(name)
            finally:
                with self.lock:
                    self.loading.pop(name, None)

    def _may_visit(self, name: Any) -> bool:
        return self.allow_hub and isinstance(name, str) and bool(HUB_ID.fullmatch(name))

    def _operators(self, name: str) -> Entry:
        if name not in self.own:
            self.own[name] = Entry(name, source_of(self.sources[name]), self.device)
        return self.own[name]

    def _visitors(self, name: str) -> Entry:
        """From the Hub alone, without this server's token, and small."""
        with self.lock:
            if name in self.visiting:
                self.visiting.move_to_end(name)
                return self.visiting[name]
        try:
            with tempfile.TemporaryDirectory() as folder:  # nobody fills this disk by typing
                repository = Repository(name, token=False, cache_dir=folder)
                size = repository.size(CONFIG, WEIGHTS)
                if size > MAX_DOWNLOAD or repository.size(CARD, EVALUATION) > MAX_TEXT:
                    raise HubError(
                        f"{name} has {size / 1e6:.0f} MB; this demo loads up to "
                        f"{MAX_DOWNLOAD / 1e6:.0f} MB, with a card of up to {MAX_TEXT:,} bytes"
                    )
                few = repository.size(*(f"{n}.png" for n in PICTURES)) <= MAX_PICTURES
                entry = Entry(name, repository, self.device, PICTURES if few else ())
            cells = math.prod(entry.model.latent_shape[1:])
            if entry.model.config.dims > MAX_DIMS or cells > MAX_CELLS:
                raise HubError(f"the images of {name} are too large for this demo")
        except (HubError, FileNotFoundError) as error:
            raise words(f"{error}.") from error
        with self.lock:
            self.visiting[name] = entry
            while len(self.visiting) > KEPT:
                self.visiting.popitem(last=False)
        return entry


def describe(card: str, pictures: Mapping[str, Image.Image] | None = None) -> str:
    """A card for the page: without metadata, and with nothing that a browser would fetch.

    Of its pictures, those named here are shown in their places: as part of the text.
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = text.partition("<!-- Written by hfvae")[0]
    text = re.sub(r"!+\[", "[", text.replace("<", "&lt;"))
    for name in PICTURES:
        shown = ""
        if pictures and name in pictures:
            picture = pictures[name].copy()
            picture.thumbnail((LARGEST, LARGEST))
            shown = f"![{name}]({data_uri(picture)})"
        text = text.replace(f"[{name}]({name}.png)", shown, 1)  # once: it may be long
    return text


def _text(source: Any, name: str) -> str:
    try:
        return source.get(name).read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _number(measured: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(measured[name])
    except (ValueError, TypeError, KeyError):
        return None


def _picture(source: Any, name: str, channels: int) -> Image.Image | None:
    """A picture beside a model, unless it is missing, broken or beyond what visitors may send."""
    try:
        return to_mode(open_safely(source.get(name)), channels)
    except (OSError, gr.Error):
        return None
