"""A model of the demo: what lies beside it, the pictures that it draws, what it says of one."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from ..base import BaseAutoencoder
from ..errors import HubError
from ..functional import psnr
from ..hub import CARD, load
from ..images import first_row, to_mode, to_pil
from ..models import FAMILIES
from .explorers import EXPLORERS
from .inputs import open_safely, words
from .scrubber import data_uri, sheet
from .work import stoppable

EVALUATION = "evaluation.json"
SHOWN = 1e9  # numbers beside a model beyond which none is shown
MOST_NUMBERS = 100  # of them that are looked at
PICTURES = ("samples", "reconstructions")  # .png, of which its card speaks
LARGEST = 1024  # pixels a side of a picture beside its card
EXAMPLES = 8  # pictures to start from, where no held-out images lie beside the model
FAR = 8.0  # dB below the usual: so are 3 held-out images in 1000, and most of other kinds
LIKENESS = ("Little alike.", "A rough likeness.", "Recognisable.", "Close.", "All but equal.")
STRANGE = (
    "This is not the kind of picture that this model knows: what you see is the nearest thing "
    "that it can draw."
)


class Entry:
    """A model and what lies beside it.

    Args:
        name: on the menu.
        source: its folder or its repository.
        device: where it goes.
        pictures: which of those beside it are shown, where they are there and sound.
        check: raises for a model that is not wanted, before its weights are fetched.
    """

    def __init__(
        self,
        name: str,
        source: Any,
        device: str,
        pictures: tuple[str, ...] = PICTURES,
        check: Callable[[BaseAutoencoder], None] | None = None,
    ):
        self.name = name

        def suits(model: BaseAutoencoder) -> None:
            if model.config.channels not in (1, 3, 4):
                raise HubError(f"{name}: no picture has {model.config.channels} channels")
            if check is not None:
                check(model)

        # float32 whatever was stored: half precision is slow on a CPU.
        self.model: BaseAutoencoder = load(source, FAMILIES, device=device, check=suits)
        stoppable(self.model)
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
        numbers = {
            name: n
            for name, n in measured.items()
            if type(n) in (int, float) and abs(n) < SHOWN  # not NaN, nor true
        }
        self.usual_bits, self.usual_psnr = numbers.get("bits_per_dim"), numbers.get("psnr")
        # What latents stand for, where that was measured: a few short names, of letters.
        told = [(re.fullmatch("latent_([a-z0-9_]{1,30})", name), n) for name, n in numbers.items()]
        factors = {match[1].replace("_", " "): n for match, n in told[:MOST_NUMBERS] if match}
        self.explorer = EXPLORERS[self.model.bottleneck.view](self.model, factors)

    def draws(self, count: int, seed: int, temperature: float = 1.0) -> Tensor:
        """New images from the prior: the same seed, the same images."""
        if not self.model.prior.samples:
            raise words("This model has no prior over its latents, so it cannot make new images.")
        return self.model.sample(count, temperature, torch.Generator().manual_seed(seed))

    def starts(self) -> list[Image.Image]:
        """Pictures to start from: held-out images, else new ones, else none."""
        if self.held_out or not self.model.prior.samples:
            return self.held_out
        return to_pil(self.draws(EXAMPLES, seed=0))

    def walk(self) -> dict[str, Any] | None:
        """A round through new images, to look at on arrival."""
        if not self.model.prior.samples:
            return None
        stops = self.draws(4, seed=1, temperature=0.8)
        ways = [self.model.interpolate(stops[i - 1], stops[i], steps=13)[:-1] for i in range(4)]
        hint = "a walk through the latent space: move over it, or drag"
        return sheet(torch.cat(ways), "line", play=True, hint=hint)

    def how_far(self, x: Tensor, y: Tensor) -> str:
        """How far a copy is from its picture, for somebody who is new to this."""
        model, decibels = self.model, psnr(x, y).item()
        text = LIKENESS[sum(decibels > limit for limit in (15, 18, 23, 30))]
        if self.usual_psnr is not None and decibels < self.usual_psnr - FAR:
            text = STRANGE
        if model.likelihood.seen:
            text += f" The picture was {model.likelihood.seen} first."
        text += f" PSNR {decibels:.1f} dB{_usually(self.usual_psnr, 1)}: the more, the closer."
        if not model.bottleneck.random:
            return text
        noise = torch.Generator().manual_seed(0)
        nats = -model.elbo(model.likelihood.observe(x, noise), noise).item()
        bits = model.likelihood.bits_per_dim(nats, model.config.dims)
        usual = _usually(self.usual_bits, 2)
        guess = model.likelihood.guess
        if not bits < guess:  # under a flow it may be billions, which says no more
            return text + f" It surprises the model by more than {guess} bits/dim{usual}."
        text += f" It surprises the model by {bits:.2f} bits/dim{usual}, {nats:,.0f} nats in all"
        return text + ": the more, the stranger."


def describe(card: str, pictures: Mapping[str, Image.Image] | None = None) -> str:
    """A card for the page: without metadata, and with nothing that a browser would fetch.

    Of its pictures, those named here are shown in their places: as part of the text.
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = text.partition("<!-- Written by hfvae")[0]
    # A diagram could make the browser fetch what it names.
    text = re.sub(r"^(\s*(?:`{3,}|~{3,}))[^\S\n]*mermaid\b", r"\1text", text, flags=re.I | re.M)
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


def _picture(source: Any, name: str, channels: int) -> Image.Image | None:
    """A picture beside a model, unless it is missing, broken or beyond what visitors may send."""
    try:
        return to_mode(open_safely(source.get(name)), channels)
    except (OSError, gr.Error):
        return None


def _usually(measured: float | None, digits: int) -> str:
    """What a number was on average for held-out images, if that was measured."""
    return "" if measured is None else f" (usually {measured:.{digits}f})"
