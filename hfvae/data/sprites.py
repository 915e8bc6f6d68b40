"""Sprites: a set of images with known factors, drawn by formula in the manner of dSprites.

One bright shape on black, given by six independent factors. Unlike those of dSprites (Matthey et
al. 2017) every factor is a line and not a circle: the tilt stays under 45 degrees, so that no
square or ellipse looks the same at two tilts, and the colours run from red to violet.
"""

import colorsys
import math

import numpy as np
import torch
from torch import Tensor

from .base import Request, Source
from .drawn import Drawn

COUNTS = {"train": 20_000, "test": 2_000}  # of the 589,824, none of them in both


class SpritesSource(Source):
    names = ("sprites",)

    def records(self, asked: Request) -> "Sprites":
        found = Sprites(asked.size, asked.channels)
        order = torch.randperm(found.population, generator=torch.Generator().manual_seed(0))
        start = 0 if asked.split == "train" else COUNTS["train"]
        found.numbers = order[start : start + COUNTS[asked.split]]
        return found


class Sprites(Drawn):
    """Any combination of six factors is a member."""

    name, licence = "sprites", "apache-2.0"
    values = {
        "shape": ("square", "ellipse", "heart"), "scale": range(6), "orientation": range(16),
        "x": range(16), "y": range(16), "colour": range(8),
    }  # fmt: skip
    counts = tuple(map(len, values.values()))
    population = math.prod(counts)

    def factors_of(self, numbers: Tensor) -> Tensor:
        return torch.stack(torch.unravel_index(numbers, self.counts), dim=1)

    def draw(self, factors: Tensor) -> Tensor:
        height, width = self.size
        shape, scale, tilt, x, y, colour = factors.T
        side = min(self.size)

        def place(index: Tensor, name: str, low: float, high: float) -> Tensor:
            return (low + (high - low) * index / (len(self.values[name]) - 1)).view(-1, 1, 1)

        radius = place(scale, "scale", 0.10, 0.20) * side
        angle = place(tilt, "orientation", -42, 42) * (math.pi / 180)
        dx = torch.arange(width) + 0.5 - place(x, "x", 0.25, 0.75) * width
        dy = torch.arange(height).view(-1, 1) + 0.5 - place(y, "y", 0.25, 0.75) * height
        u = (dx * torch.cos(angle) + dy * torch.sin(angle)) / radius
        v = (dy * torch.cos(angle) - dx * torch.sin(angle)) / radius

        distance = torch.empty_like(u)
        for i, outline in enumerate([_square, _ellipse, _heart]):
            those = shape == i
            distance[those] = outline(u[those], v[those])
        coverage = (0.5 - distance * radius).clamp(0, 1)  # of each pixel, to within a straight edge
        tint = _palette(self.channels)[colour].view(-1, self.channels, 1, 1)
        pixels = coverage[:, None] * tint
        if self.channels == 4:
            pixels[:, 3] = 1
        return (pixels * 255).round().to(torch.uint8)


# Signed distances to the outline, negative inside, in units of the radius.


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.85


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    # The level set divided by its slope: exact to first order at the outline.
    level = torch.hypot(u / 1.15, v / 0.6)
    slope = torch.hypot(u / 1.15**2, v / 0.6**2).clamp_min(1e-6)
    return level * (level - 1) / slope


def _heart(u: Tensor, v: Tensor) -> Tensor:
    # A square standing on its corner, and a disc on each of its upper sides; v points down.
    u, v = u.abs(), v - 0.15
    diamond = (u + v.abs() - 1) / math.sqrt(2)
    disc = torch.hypot(u - 0.5, v + 0.5) - math.sqrt(0.5)
    return torch.minimum(diamond, disc)


def _palette(channels: int) -> Tensor:
    count = len(Sprites.values["colour"])
    if channels == 1:
        return torch.linspace(0.4, 1, count).view(-1, 1)
    hues = np.linspace(0, 0.78, count)
    colours = torch.tensor([colorsys.hsv_to_rgb(hue, 0.85, 1.0) for hue in hues])
    return torch.cat([colours, torch.ones(count, channels - 3)], dim=1)
