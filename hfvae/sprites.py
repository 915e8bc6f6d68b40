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

# How many values each factor takes; any combination is an image.
FACTORS = {"shape": 3, "scale": 6, "orientation": 16, "x": 16, "y": 16, "colour": 8}
SHAPES = ("square", "ellipse", "heart")


class Sprites:
    """The set as a whole: draws any combination of factors on demand, at one size.

    Attributes:
        counts: how many values each factor takes.
    """

    counts = tuple(FACTORS.values())

    def __init__(self, size: tuple[int, int] = (64, 64), channels: int = 3) -> None:
        self.size, self.channels = size, channels

    def draw_factors(self, n: int, generator: torch.Generator) -> Tensor:
        """n combinations: int64 (n, 6)."""
        return draw_factors(n, generator)

    def images(self, factors: Tensor) -> Tensor:
        """float (n, C, H, W) in [0, 1]."""
        return render(factors, self.size, self.channels).float() / 255


def draw_factors(n: int, generator: torch.Generator) -> Tensor:
    """n combinations, each factor uniform by itself: int64 (n, 6)."""
    columns = [torch.randint(count, (n,), generator=generator) for count in FACTORS.values()]
    return torch.stack(columns, dim=1)


def combination(number: Tensor) -> Tensor:
    """The factors of combinations counted from 0: int64 (n,) -> (n, 6)."""
    columns = []
    for count in reversed(FACTORS.values()):
        columns.append(number % count)
        number = number // count
    return torch.stack(columns[::-1], dim=1)


def render(factors: Tensor, size: tuple[int, int] = (64, 64), channels: int = 3) -> Tensor:
    """The images of factors (n, 6): uint8 (n, channels, H, W), antialiased.

    Raises:
        ValueError: a factor is out of range, or channels is not 1, 3 or 4.
    """
    if channels not in (1, 3, 4):
        raise ValueError(f"sprites come in 1, 3 or 4 channels, not {channels}")
    counts = torch.tensor(list(FACTORS.values()))
    if factors.ndim != 2 or factors.shape[1] != 6 or ((factors < 0) | (factors >= counts)).any():
        raise ValueError(f"factors are (n, 6), counted from 0 up to below {counts.tolist()}")
    return torch.cat([_render(chunk, size, channels) for chunk in factors.split(256)])


def _render(factors: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    height, width = size
    shape, scale, tilt, x, y, colour = factors.T
    side = min(size)

    def place(index: Tensor, name: str, low: float, high: float) -> Tensor:
        return (low + (high - low) * index / (FACTORS[name] - 1)).view(-1, 1, 1)

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
    tint = _palette(channels)[colour].view(-1, channels, 1, 1)
    pixels = coverage[:, None] * tint
    if channels == 4:
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
    count = FACTORS["colour"]
    if channels == 1:
        return torch.linspace(0.4, 1, count).view(-1, 1)
    hues = np.linspace(0, 0.78, count)
    colours = torch.tensor([colorsys.hsv_to_rgb(hue, 0.85, 1.0) for hue in hues])
    return torch.cat([colours, torch.ones(count, channels - 3)], dim=1)
