"""What Explore shows of a kind of latent, and how one moves in it: an explorer for each `view`."""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..base import BaseAutoencoder
from ..images import to_pil
from ..priors import Prior
from .inputs import places, real, seen, several, whole, words
from .scrubber import data_uri, exact, sheet

LATENTS, PLACES = 8, 11  # sliders, and decoded places on each
COMPARED = 64  # new images, to tell which latents differ most
ENDS = (0.05, 0.95)  # of a slider: so many of them lie below
MAP = 10  # places along each side of the map
Shown = dict[str, dict[str, Any]]  # what scrubbers show, by their kind
Picture = Image.Image | None


class Explorer(ABC):
    """Explore of one model; `factors` says which entry of z each of them is, if any."""

    def __init__(self, model: BaseAutoencoder, factors: Mapping[str, Any]) -> None:
        self.model, self.factors = model, factors
        self.latents: Any = model.bottleneck
        self.entries = math.prod(self.latents.event_shape)

    @abstractmethod
    def show(self, image: Picture) -> Shown:
        """What there is to move of a picture."""

    @abstractmethod
    def move(self, image: Picture, to: dict[str, Any]) -> Any:
        """What the scrubber of a kind shows where it was left.

        A page may still have those of the model before: words for a kind that is not this one's.
        """

    def value(self, value: Any) -> float:
        """What an entry may be set to, from a visitor."""
        return real(value, -1e6, 1e6, "Value")


class Telling(NamedTuple):
    """The latents to move: entries of z, with a label, and from where to where to go.

    Here and below, z is where the base of this prior is: of a flow not the decoder's z. There
    single entries lead from one likely image to another, and in the decoder's z soon out of all.
    """

    prior: Prior
    dims: list[int]
    labels: list[str]
    low: Tensor
    high: Tensor

    def place(self, z: Tensor) -> list[float]:
        """Where z (1, D) lies along each, from 0 to 1."""
        return ((z[0, self.dims] - self.low) / (self.high - self.low)).clamp(0, 1).tolist()

    def moved(self, z: Tensor, at: Tensor) -> Tensor:
        """z (1, D) moved to each of N places (N, n) along the first n of them: (N, D)."""
        z, n = z.repeat(len(at), 1), min(at.shape[1], len(self.dims))
        z[:, self.dims[:n]] = torch.lerp(self.low[:n], self.high[:n], at[:, :n].to(z))
        return z


class VectorExplorer(Explorer):
    """Latents that are numbers: sliders for those that tell most, and a map of the first two."""

    def __init__(self, model: BaseAutoencoder, factors: Mapping[str, Any]) -> None:
        super().__init__(model, factors)
        self.tellings: dict[str, Telling] = {}  # by the letter of the base

    def show(self, image: Picture) -> Shown:
        z, telling = self.read(image)
        sliders = self.sliders(z, telling, telling.place(z))
        return {"sliders": sliders, "plane": self.plane(z, telling)}

    def move(self, image: Picture, to: dict[str, Any]) -> Any:
        z, telling = self.read(image)
        if to.get("kind") == "sliders":
            at = places(to.get("at"), len(telling.dims))
            return self.sliders(telling.moved(z, torch.tensor([at])), telling, at)
        if to.get("kind") == "plane":
            at = places(to.get("at"), 2)
            return exact(at, self.decoded(telling.moved(z, torch.tensor([at])), telling.prior))
        raise words("This model has no grid.")

    def read(self, image: Picture) -> tuple[Tensor, Telling]:
        """z of a picture as one row of numbers, before any rounding, (1, D); what to show of it.

        Of a model that cannot draw images to compare, the first latents, around where z is.
        """
        z = self.model.infer(seen(self.model, image)).mode().flatten(1)
        prior = self.model.prior.around(z)
        z = prior.to_base(z)
        if prior.samples:
            return z, self.compared(prior)
        dims = list(range(min(LATENTS, z.shape[1])))
        middle, spread = z[0, dims], 3 * z.square().mean().sqrt().clamp(min=1e-3)
        return z, Telling(prior, dims, [f"z{i}" for i in dims], middle - spread, middle + spread)

    def compared(self, prior: Prior) -> Telling:
        """What `compare` gives, kept: it takes many images."""
        if prior.letter not in self.tellings:
            self.tellings[prior.letter] = self.compare(prior)
        return self.tellings[prior.letter]

    def compare(self, prior: Prior) -> Telling:
        """The latents that stand for factors, and those that differ most between new images."""
        images = self.model.sample(COMPARED, generator=torch.Generator().manual_seed(0))
        posterior = prior.in_base(self.model.infer(images))
        ranked, weights, unit = self.latents.axes(posterior)
        factors = self.factors if prior is self.model.prior else {}
        named = [dim for dim in ranked if dim in factors.values()]
        dims = [*named, *(dim for dim in ranked if dim not in named)][:LATENTS]
        labels = []
        for dim in dims:
            stands_for = [name for name, entry in factors.items() if entry == dim]
            weight = f"{weights[ranked.index(dim)]:.1f} {unit}"
            labels.append(" · ".join([f"{prior.letter}{dim}", *stands_for, weight]))
        z = posterior.mode().flatten(1)[:, dims]
        low, high = z.quantile(torch.tensor(ENDS).to(z), dim=0)
        return Telling(prior, dims, labels, low, high.maximum(low + 1e-3))

    def decoded(self, z: Tensor, prior: Prior) -> Tensor:
        """Many latents (N, D), a few at a time: their images may be large."""
        some = prior.from_base(z).view(-1, *self.model.latent_shape).split(8)
        return torch.cat([self.model.decode(self.latents.quantize(s)) for s in some])

    def sliders(self, z: Tensor, telling: Telling, at: list[float]) -> dict[str, Any]:
        """The image of z (1, D), and what each of its telling latents does to it alone."""
        rows, along = z.repeat(len(at), PLACES, 1), torch.linspace(0, 1, PLACES).to(z)
        for row, dim, low, high in zip(rows, telling.dims, telling.low, telling.high, strict=True):
            row[:, dim] = torch.lerp(low, high, along)
        return sheet(
            self.decoded(rows.flatten(0, 1), telling.prior), "sliders", rows=len(at), at=at,
            picture=data_uri(to_pil(self.decoded(z, telling.prior))[0]), labels=telling.labels,
            hint=f"each slider is {telling.prior.entry}", live=True,
        )  # fmt: skip

    def plane(self, z: Tensor, telling: Telling) -> dict[str, Any]:
        """Images all over the plane of the two most telling latents."""
        side = torch.linspace(0, 1, MAP)
        everywhere = torch.cartesian_prod(side, side).flip(1)  # row by row
        at = [*telling.place(z), 0.5][:2]  # of a single latent, anywhere down
        across, down = telling.labels[0], telling.labels[:2][-1]
        here = telling.moved(z, torch.tensor([at]))
        return sheet(
            self.decoded(telling.moved(z, everywhere), telling.prior), "plane", rows=MAP, at=at,
            picture=data_uri(to_pil(self.decoded(here, telling.prior))[0]), live=True,
            hint=f"move over the map, or drag: across {across}, down {down}",
        )  # fmt: skip


class CellsExplorer(Explorer):
    """A grid: a click gives a cell another content, drawn at random.

    What the cells hold is known by a number for each, which the page keeps.
    """

    hint: ClassVar[str]

    def show(self, image: Picture) -> Shown:
        return {"codes": self.grid(image, self.numbers(image))}

    def move(self, image: Picture, to: dict[str, Any]) -> Any:
        if to.get("kind") != "codes":
            kind = self.hint.partition(":")[0]
            raise words(f"This model has a grid of {kind}: press Explore to see it.")
        h, w = self.model.latent_shape[1:]
        numbers = several(to.get("codes"), h * w, lambda n: whole(n, 0, self.most - 1, "Value"))
        numbers[whole(to.get("cell"), 0, h * w - 1, "Cell")] = secrets.randbelow(self.most)
        return self.grid(image, torch.tensor(numbers, device=self.model.device).view(1, h, w))

    def grid(self, image: Picture, numbers: Tensor) -> dict[str, Any]:
        """The numbers (1, h, w) of a picture's cells, and what is decoded of them."""
        return sheet(
            self.model.decode(self.content(image, numbers)), "codes",
            codes=numbers.flatten().tolist(), grid=numbers.shape[1:],
            hint=f"{numbers.numel()} {self.hint}",
        )  # fmt: skip

    @property
    @abstractmethod
    def most(self) -> int:
        """How many numbers there are."""

    @abstractmethod
    def numbers(self, image: Picture) -> Tensor:
        """Those of a picture, (1, h, w)."""

    @abstractmethod
    def content(self, image: Picture, numbers: Tensor) -> Tensor:
        """The latent that they stand for, (1, C, h, w)."""


class CodesExplorer(CellsExplorer):
    """A grid of codes, which are the numbers."""

    hint = "codes: a click gives a cell another one"

    @property
    def most(self) -> int:
        return self.latents.codebook_size

    def value(self, value: Any) -> int:
        return whole(value, 0, self.most - 1, "Value")

    def numbers(self, image: Picture) -> Tensor:
        return self.model.infer(seen(self.model, image)).events()

    def content(self, image: Picture, numbers: Tensor) -> Tensor:
        return self.latents.lookup(numbers)


class GridExplorer(CellsExplorer):
    """A grid of vectors: 0 stands for the picture's own, others for those of new images there."""

    hint = "cells: a click puts there what a new image has in that place"
    most = 16

    def numbers(self, image: Picture) -> Tensor:
        seen(self.model, image)
        return torch.zeros(1, *self.model.latent_shape[1:], dtype=torch.int64)

    def content(self, image: Picture, numbers: Tensor) -> Tensor:
        z = torch.cat([self.model.encode(seen(self.model, image)), self.others])
        return z.gather(0, numbers[:, None].expand(-1, z.shape[1], -1, -1).to(z.device))

    @cached_property
    def others(self) -> Tensor:
        """The latents of new images, (most − 1, C, h, w)."""
        noise = torch.Generator().manual_seed(0)
        drawn = self.model.prior.sample(self.most - 1, generator=noise)
        return self.latents.lookup(drawn.to(self.model.device))


EXPLORERS: dict[str, type[Explorer]] = {
    "vector": VectorExplorer,
    "codes": CodesExplorer,
    "grid": GridExplorer,
}
