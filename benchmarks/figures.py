"""Pictures of what the models in pretrained/ do, for the documents.

    python benchmarks/figures.py

Writes traversals.png and interpolations.png to benchmarks/results, from seeds and no data.
"""

import json

import torch
from PIL import Image, ImageDraw
from run import HERE, ROOT
from torch import Tensor

import hfvae
from hfvae.data.sprites import Sprites
from hfvae.functional import gaussian_kl_by_latent

PRETRAINED = ROOT / "pretrained"
STEPS = 11


def rows_of(strips: list[Tensor], names: list[str], scale: int) -> Image.Image:
    """One row of images for each strip (n, C, H, W), its name on the left."""
    pictures = [hfvae.grid(strip, columns=len(strip)).convert("RGB") for strip in strips]
    pictures = [p.resize((p.width * scale, p.height * scale), 0) for p in pictures]
    margin, high = 150 * any(names), pictures[0].height + 4
    sheet = Image.new("RGB", (margin + pictures[0].width, high * len(pictures)), "white")
    for i, (name, strip) in enumerate(zip(names, pictures, strict=True)):
        sheet.paste(strip, (margin, i * high))
        ImageDraw.Draw(sheet).text((6, i * high + high // 2 - 8), name, "black", font_size=14)
    return sheet


def traversals() -> Image.Image:
    """A sprite, and each latent that carries something moved over two standard deviations."""
    folder = PRETRAINED / "sprites-beta-vae"
    model = hfvae.from_pretrained(folder)
    measured = json.loads((folder / "evaluation.json").read_text())
    sprites = Sprites(model.config.size, model.config.channels)
    some = sprites.images(sprites.draw_factors(256, torch.Generator().manual_seed(0)))
    mu, logvar = model.posterior(some)
    each = gaussian_kl_by_latent(mu, logvar).mean(0)
    middle = sprites.images(torch.tensor([[0, 3, 8, 8, 8, 4]]))[0]
    strips, names = [], []
    for latent in each.argsort(descending=True).tolist():
        if each[latent] < 0.1:  # it says nothing
            continue
        stands_for = [name for name in sprites.values if measured.get(f"latent_{name}") == latent]
        names.append(f"z{latent} {', '.join(stands_for)} ({each[latent]:.1f} nats)")
        strips.append(model.traverse(middle, latent, torch.linspace(-2, 2, STEPS)))
    return rows_of(strips, names, 2)


def interpolations() -> Image.Image:
    """Ways between new avatars."""
    model = hfvae.from_pretrained(PRETRAINED / "avatars-flow-vae")
    ends = model.sample(10, generator=torch.Generator().manual_seed(3))
    strips = [model.interpolate(*pair, steps=STEPS) for pair in ends.split(2)]
    return rows_of(strips, [""] * len(strips), 1)


def main() -> None:
    traversals().save(HERE / "results" / "traversals.png", optimize=True)
    small = interpolations().quantize()  # to 256 colours: a third of the bytes
    small.save(HERE / "results" / "interpolations.png", optimize=True)


if __name__ == "__main__":
    main()
