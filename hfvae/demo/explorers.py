"""What Explore shows of a kind of latent, and how one moves in it: an explorer for each `view`."""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr
import torch
from torch import Tensor

from ..base import BaseAutoencoder
from ..images import to_pil
from .inputs import places, real, several, whole, words
from .scrubber import data_uri, exact, sheet

LATENTS, PLACES = 6, 11  # sliders, and decoded places on each
COMPARED = 64  # new images, to tell which latents differ most
MAP = 10  # places along each side of the map
Shown = dict[str, Any] | None


class Explorer(ABC):
    """Explore of one model.

    The page may still show the latents of the model before: moves of the other view get words.

    Args:
        model: what is explored.
        factors: which entry of z each stands for, where that was measured.
    """

    other_view: str

    def __init__(self, model: BaseAutoencoder, factors: Mapping[str, Any]) -> None:
        self.model, self.factors = model, factors

    @abstractmethod
    def show(self, x: Tensor) -> tuple[Shown, Shown, Shown]:
        """Sliders, map and code grid of an image (1, C, H, W); None for what it has not."""

    @abstractmethod
    def choose(self, dim: Any, value: Any) -> tuple[int, float]:
        """What a visitor asks `model.traverse` for, checked."""

    def move_sliders(self, x: Tensor, at: Any) -> dict[str, Any]:
        """The sliders where they were left, with the picture there."""
        raise words(self.other_view)

    def move_on_map(self, x: Tensor, at: Any) -> gr.HTML:
        """The picture at a place of the map."""
        raise words(self.other_view)

    def change_code(self, codes: Any, cell: Any) -> dict[str, Any]:
        """The code grid with another code in one cell, drawn at random."""
        raise words(self.other_view)


class Telling(NamedTuple):
    """The latents that tell most: entries of z, with a label, and from where to where to go."""

    dims: list[int]
    labels: list[str]
    low: Tensor
    high: Tensor

    def place(self, z: Tensor) -> list[float]:
        """Where z (1, D) lies along each, from 0 to 1."""
        return ((z[0, self.dims] - self.low) / (self.high - self.low)).clamp(0, 1).tolist()

    def moved(self, z: Tensor, at: Tensor) -> Tensor:
        """z (1, D) moved to each of N places (N, n) along the first n: (N, D)."""
        n = at.shape[1]
        z = z.repeat(len(at), 1)
        z[:, self.dims[:n]] = torch.lerp(self.low[:n], self.high[:n], at.to(z))
        return z


class VectorExplorer(Explorer):
    """Latents that are numbers: sliders for those that tell most, and a map of the first two."""

    other_view = "This model has no codes."
    compared: Telling | None = None  # once somebody explores

    def show(self, x: Tensor) -> tuple[Shown, Shown, Shown]:
        z = self.latent(x)
        telling = self.telling(z)
        return self.sliders(telling, z, telling.place(z)), self.map(telling, z), None

    def choose(self, dim: Any, value: Any) -> tuple[int, float]:
        value = real(value, -1e6, 1e6, "Value")
        return whole(dim, 0, math.prod(self.model.latent_shape) - 1, "Dim"), value

    def move_sliders(self, x: Tensor, at: Any) -> dict[str, Any]:
        z = self.latent(x)
        telling = self.telling(z)
        at = places(at, len(telling.dims))
        return self.sliders(telling, telling.moved(z, torch.tensor([at])), at)

    def move_on_map(self, x: Tensor, at: Any) -> gr.HTML:
        at, z = places(at, 2), self.latent(x)
        return exact(at, self.on_map(self.telling(z), z, torch.tensor([at])))

    def latent(self, x: Tensor) -> Tensor:
        """z of images as one row of numbers each, before any rounding: (B, D)."""
        return self.model.infer(x).mode().flatten(1)

    def decoded(self, z: Tensor) -> Tensor:
        """Many latents (N, D), a few at a time: their images may be large."""
        grids = z.view(-1, *self.model.latent_shape).split(8)
        return torch.cat([self.model.decode(self.model.bottleneck.quantize(g)) for g in grids])

    def telling(self, z: Tensor) -> Telling:
        """Those that differ most between new images.

        Of a model that cannot draw images to compare, the first ones, around where z (1, D) is.
        """
        if not self.model.prior.samples:
            dims = list(range(min(LATENTS, z.shape[1])))
            spread = 3 * z.square().mean().sqrt().clamp(min=1e-3)
            return Telling(dims, [f"z{i}" for i in dims], z[0, dims] - spread, z[0, dims] + spread)
        if self.compared is None:
            noise = torch.Generator().manual_seed(0)
            self.compared = self.compare(self.model.sample(COMPARED, generator=noise))
        return self.compared

    def compare(self, images: Tensor) -> Telling:
        posterior = self.model.infer(images)
        dims, weights, unit = self.model.bottleneck.axes(posterior, LATENTS)
        labels = []
        for dim, weight in zip(dims, weights, strict=True):
            stands_for = [name for name, latent in self.factors.items() if latent == dim]
            labels.append(" · ".join([f"z{dim}", *stands_for, f"{weight:.1f} {unit}"]))
        z = posterior.mode().flatten(1)[:, dims]
        middle, spread = z.mean(0), 3 * z.std(0).clamp(min=1e-3)
        return Telling(dims, labels, middle - spread, middle + spread)

    def sliders(self, telling: Telling, z: Tensor, at: list[float]) -> dict[str, Any]:
        """The image of z (1, D), and what each of its telling latents does to it alone."""
        rows = z.repeat(len(telling.dims), PLACES, 1)
        along = torch.linspace(0, 1, PLACES).to(z)
        for row, dim, low, high in zip(rows, telling.dims, telling.low, telling.high, strict=True):
            row[:, dim] = torch.lerp(low, high, along)
        return sheet(
            self.decoded(rows.flatten(0, 1)), "sliders", rows=len(rows), at=at,
            picture=data_uri(to_pil(self.decoded(z))[0]), labels=telling.labels, live=True,
            hint="each slider is one latent",
        )  # fmt: skip

    def on_map(self, telling: Telling, z: Tensor, at: Tensor) -> Tensor:
        """Images at places (N, 2) of the plane of the two most telling latents."""
        return self.decoded(telling.moved(z, at[:, : len(telling.dims)]))

    def map(self, telling: Telling, z: Tensor) -> dict[str, Any]:
        side = torch.linspace(0, 1, MAP)
        everywhere = torch.cartesian_prod(side, side).flip(1)  # row by row
        at = [*telling.place(z), 0.5][:2]  # of a single latent, anywhere down
        across, down = telling.labels[0], telling.labels[:2][-1]
        return sheet(
            self.on_map(telling, z, everywhere), "plane", rows=MAP, at=at, live=True,
            picture=data_uri(to_pil(self.on_map(telling, z, torch.tensor([at])))[0]),
            hint=f"move over the map, or drag: across {across}, down {down}",
        )  # fmt: skip


class CodesExplorer(Explorer):
    """A grid of codes: a click gives a cell another one."""

    other_view = "This model has a grid of codes: press Explore to see it."

    def __init__(self, model: BaseAutoencoder, factors: Mapping[str, Any]) -> None:
        super().__init__(model, factors)
        self.latents: Any = model.bottleneck
        self.last_code = self.latents.codebook_size - 1
        self.cells = math.prod(self.latents.event_shape)

    def show(self, x: Tensor) -> tuple[Shown, Shown, Shown]:
        return None, None, self.grid(self.model.infer(x).events())

    def choose(self, dim: Any, value: Any) -> tuple[int, float]:
        value = whole(value, 0, self.last_code, "Value")
        return whole(dim, 0, self.cells - 1, "Dim"), value

    def change_code(self, codes: Any, cell: Any) -> dict[str, Any]:
        found = several(codes, self.cells, lambda c: whole(c, 0, self.last_code, "Code"))
        found[whole(cell, 0, self.cells - 1, "Cell")] = secrets.randbelow(self.last_code + 1)
        grid = torch.tensor(found, device=self.model.device)
        return self.grid(grid.view(1, *self.latents.event_shape))

    def grid(self, codes: Tensor) -> dict[str, Any]:
        """The grid (1, h, w), and the image that is decoded from it."""
        return sheet(
            self.model.decode(self.latents.lookup(codes)), "codes",
            codes=codes.flatten().tolist(), grid=codes.shape[1:],
            hint=f"{self.cells} codes: a click gives a cell another one",
        )  # fmt: skip


EXPLORERS: dict[str, type[Explorer]] = {"vector": VectorExplorer, "codes": CodesExplorer}
