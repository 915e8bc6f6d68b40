"""Avatars: pictures of people and other things that the DiceBear packages draw from seeds.

`avatars` is the style `personas`, `avatars:STYLE` any other. A seed's number decides what the style
picks for it. Of that, factors are

- which variant of a part it is, such as `hair`, "none" where not all have that part;
- which colour of a palette, such as `hair_colour`, "#rrggbb". One that only follows another colour,
  for its contrast, is no factor.

A factor has a value also where its picture does not show it, such as the colour of no beard. In
`personas` ten factors decide everything: clothes (4 values), eyes (6, two of them with glasses),
facial hair (7), hair (20), mouth (7), nose (3), and the colours (7) of clothing, facial hair, hair
and skin. Other styles also move parts by any amount, or repeat them, which is in no factor.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from importlib import metadata, resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import NEEDS_TRAIN
from ..images import to_bytes
from . import cache
from .base import DataError, Request, Size, Source
from .drawn import Drawn

COUNTS = {"train": 16_000, "test": 2_000}  # seeds, the first ones and the next ones
PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py")  # other versions may draw otherwise
LICENCES = {"CC BY 4.0": "cc-by-4.0", "CC0 1.0": "cc0-1.0", "MIT": "mit"}


class AvatarsSource(Source):
    names = ("avatars",)

    def has(self, dataset: str) -> bool:
        name, _, style = dataset.partition(":")
        if name.lower() != "avatars":
            return False
        try:
            import dicebear  # noqa: F401
            import resvg_py  # noqa: F401

            files = [path.name for path in resources.files("dicebear_styles").iterdir()]
        except ImportError as error:
            raise DataError(f"drawing avatars {NEEDS_TRAIN}") from error
        known = sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))
        if style and style not in known:
            raise DataError(f"there are no avatars of style {style}; styles: {', '.join(known)}")
        return True

    def records(self, asked: Request) -> "Avatars":
        style = asked.dataset.partition(":")[2] or "personas"
        found = Avatars(style, asked.size, asked.channels)
        train, found.held_out = COUNTS["train"], asked.split == "test"
        found.numbers = (
            train + torch.arange(COUNTS["test"]) if found.held_out else torch.arange(train)
        )
        found.identity = f"{asked.split} {COUNTS}"
        return found


class Avatars(Drawn):
    """Those of a style. What is `held_out` leaves out pictures that are among the others."""

    name = "avatars"
    population = 2**53
    held_out = False

    def __init__(self, style: str, size: Size | None = None, channels: int | None = None) -> None:
        from dicebear import Style

        super().__init__(size, channels)
        text = resources.files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8")
        definition = json.loads(text)
        self.style_name, self.style = style, Style(definition)
        self.options = {o: values for o, values in _options(self.style) if len(values) > 1}
        self.values = {_words(o): [v or "none" for v in vs] for o, vs in self.options.items()}
        self.counts = tuple(map(len, self.values.values()))
        versions = [f"{package} {metadata.version(package)}" for package in PACKAGES]
        self.label = "-".join(["avatars", style, *versions, ""]).replace(" ", "-")
        self.credit, self.licence = _credit(definition["meta"])
        self.credit += f" They are drawn by {', '.join(versions)}."

    def factors_of(self, numbers: Tensor) -> Tensor:
        from dicebear.options import Options
        from dicebear.resolver import Resolver

        rows = []
        for seed in self.seeds(numbers):
            picked = Resolver(self.style, Options(seed))  # also of what a picture does not show
            row = []
            for option, values in self.options.items():
                if option.endswith("Color"):
                    value = picked.color(option.removesuffix("Color"))[0]
                else:
                    value = picked.variant(option.removesuffix("Variant"))
                row.append(values.index(value))
            rows.append(row)
        return torch.tensor(rows)

    def seeds(self, numbers: Tensor) -> Iterator[dict[str, Any]]:
        return ({"seed": f"{self.style_name}-{number}"} for number in numbers.tolist())

    def draw(self, factors: Tensor) -> Tensor:
        """What is no factor is as in the member of the empty seed."""
        rows = []
        for row in factors.tolist():
            options: dict[str, Any] = {}
            for (option, values), i in zip(self.options.items(), row, strict=True):
                if not option.endswith("Color"):
                    shown = option.removesuffix("Variant") + "Probability"
                    options[shown] = 0 if values[i] is None else 100
                if values[i] is not None:
                    options[option] = values[i]
            rows.append(options)
        return torch.from_numpy(np.stack([*self.pictures(rows)]))

    def pictures(self, options: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
        """uint8 (C, H, W) of each options."""
        import resvg_py
        from dicebear import Avatar

        side = max(self.size)
        for some in options:
            svg = Avatar(self.style, some).to_string()
            # Without the fonts of this machine, so that it is the same on any.
            png = resvg_py.svg_to_bytes(
                svg_string=svg, width=side, height=side, skip_system_fonts=True
            )
            image = Image.open(io.BytesIO(png), formats=["PNG"])
            yield to_bytes(image, self.size, self.channels)

    def decoded(self, size: Size, channels: int) -> Iterator[np.ndarray]:
        kept: list[Tensor] = []
        taken: set[int] = set()
        if self.held_out:
            others = Request(f"avatars:{self.style_name}", "train", size, channels)
            found = cache.decode(AvatarsSource().records(others), (channels, *size))
            for some in found.pixels.split(256):
                taken |= {hash(image.numpy().tobytes()) for image in some}
                cache.release(found.mapped)
        drawn = self.pictures(self.seeds(self.numbers))
        for number, image in zip(self.numbers, drawn, strict=True):
            if hash(image.tobytes()) not in taken:
                kept.append(number)
                yield image
        if not kept:
            raise DataError(f"{self.style_name} has too few different pictures to hold some out")
        self.numbers = torch.stack(kept)


def _options(style: Any) -> Iterator[tuple[str, list[str | None]]]:
    """What a style picks from finitely many values; None is a part that is not there."""
    from dicebear.utils.color import Color

    for name, part in style.components().items():
        # What repeats a part has no options of its own.
        if part.source_name() == name:
            values = [v for v, variant in part.variants().items() if variant.weight() > 0]
            yield f"{name}Variant", values + [None] * (part.probability() < 100)
    for name, colour in style.colors().items():
        if colour.contrast_to() is None:
            yield f"{name}Color", [*dict.fromkeys(map(Color.to_hex, colour.values()))]


def _words(option: str) -> str:
    """hairColor -> hair_colour, facialHairVariant -> facial_hair."""
    name = option.removesuffix("Variant").replace("Color", "Colour")
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _credit(meta: dict[str, Any]) -> tuple[str, str]:
    """Whose the images are, in a sentence, and their licence as the Hub writes it."""
    licence, source = meta["license"], meta["source"]
    remix = "a remix of " * licence["text"].startswith("Remix")
    return (
        f"The images are {remix}[{source['name']}]({source['url']}) by {meta['creator']['name']}, "
        f"[{licence['name']}]({licence['url']})."
    ), LICENCES.get(licence["name"], "other")
