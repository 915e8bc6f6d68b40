"""The models of a demo: the operator's, and those on the Hub whose id a visitor types."""

import math
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..base import BaseAutoencoder
from ..errors import HubError, expand
from ..hub import CARD, CONFIG, WEIGHTS, is_path, source_of
from ..hub.remote import Repository
from .entry import EVALUATION, PICTURES, Entry
from .inputs import words
from .work import check_work

HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
MAX_DOWNLOAD = 200_000_000  # bytes of a visitor's model
MAX_TEXT = 100_000  # bytes of its card and its numbers
MAX_PICTURES = 10_000_000  # bytes of its pictures: with more, it is shown without them
MAX_DIMS, MAX_CELLS = 512 * 512 * 3, 1024  # of their images and code grids: seconds, not hours
KEPT = 3  # models of visitors that stay loaded


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
        self.names = list(self.sources)
        self.allow_hub, self.device = allow_hub, device
        self.own: dict[str, Entry] = {}
        self.visiting: OrderedDict[str, Entry] = OrderedDict()
        self.lock = threading.Lock()
        self.loading: dict[str, threading.Lock] = {}

    def visits(self, name: Any) -> bool:
        """Whether a name is none of the operator's but a Hub id, where visitors may type one."""
        operators = name is None or name in (*self.sources, *self.sources.values())
        return (
            not operators
            and self.allow_hub
            and isinstance(name, str)
            and bool(HUB_ID.fullmatch(name))
        )

    def fetches(self, name: Any) -> bool:
        """Whether asking for that model would fetch it from the Hub."""
        return self.visits(name) and name not in self.visiting

    def __getitem__(self, name: str | None) -> Entry:
        """The entry of a name on the menu (None: the first), or of a Hub id.

        Raises:
            gradio.Error: no such model, in words for the visitor.
        """
        name = self.names[0] if name is None else name
        # The operator's own programs may say what the command line said.
        name = next((known for known, source in self.sources.items() if source == name), name)
        if name not in self.sources and not self.visits(name):
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
        refused = ""
        try:
            with tempfile.TemporaryDirectory() as folder:  # nobody fills this disk by typing
                repository = Repository(name, token=False, cache_dir=folder)
                sizes = repository.sizes()
                size = sizes[CONFIG] + sizes[WEIGHTS]
                if size > MAX_DOWNLOAD or sizes[CARD] + sizes[EVALUATION] > MAX_TEXT:
                    raise HubError(
                        f"{name} has {size / 1e6:.0f} MB; this demo loads up to "
                        f"{MAX_DOWNLOAD / 1e6:.0f} MB, with a card of up to {MAX_TEXT:,} bytes"
                    )
                few = sum(sizes[f"{n}.png"] for n in PICTURES) <= MAX_PICTURES
                pictures = PICTURES if few else ()
                entry = Entry(name, repository, self.device, pictures, partial(_check, name))
        except (HubError, FileNotFoundError) as error:
            refused = f"{error}."
        if refused:  # without the error, which holds on to what was loaded until it was found out
            raise words(refused)
        with self.lock:
            self.visiting[name] = entry
            while len(self.visiting) > KEPT:
                self.visiting.popitem(last=False)
        return entry


def _check(name: str, model: BaseAutoencoder) -> None:
    """Raise HubError for what would take a visitor's model hours."""
    cells = math.prod(model.latent_shape[1:])
    if model.config.dims > MAX_DIMS or cells > MAX_CELLS:
        raise HubError(f"the images of {name} are too large for this demo")
    check_work(model, name)
