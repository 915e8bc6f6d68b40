"""What the demo makes of a model and pictures: what it sees, draws, and says of a copy."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..base import BaseAutoencoder
from ..functional import psnr
from ..images import to_pil
from .inputs import words
from .menu import Entry
from .scrubber import kept, sheet

MAX_NUMBERS = 2**25  # in the images of one answer
EXAMPLES = 8  # pictures to start from, where no held-out images lie beside the model
FAR = 8.0  # dB below the usual: so are 3 held-out images in 1000, and most of other kinds
LIKENESS = ["Little alike.", "A rough likeness.", "Recognisable.", "Close.", "All but equal."]
STRANGE = (
    "This is not the kind of picture that this model knows: what you see is the nearest thing "
    "that it can draw."
)


def within_limits(model: BaseAutoencoder, count: int) -> int:
    """So many images, or words if they are too many at their size."""
    most = max(2, MAX_NUMBERS // model.config.dims)
    if count > most:
        raise words(f"The images of this model are large: at most {most} at once.")
    return count


def draws(model: BaseAutoencoder, count: int, seed: int, temperature: float = 1.0) -> Tensor:
    """New images from the prior: the same seed, the same images."""
    if not model.prior.samples:
        raise words("This model has no prior over its latents, so it cannot make new images.")
    return model.sample(count, temperature, generator=torch.Generator().manual_seed(seed))


def files(images: Tensor) -> list[str]:
    """Images as PNG files that the page fetches."""
    return [kept(picture) for picture in to_pil(images)]


def how_far(entry: Entry, x: Tensor, y: Tensor) -> str:
    """How far a reconstruction is from its picture, for somebody who is new to this."""
    model, decibels = entry.model, psnr(x, y).item()
    text = LIKENESS[sum(decibels > limit for limit in (15, 18, 23, 30))]
    if entry.usual_psnr is not None and decibels < entry.usual_psnr - FAR:
        text = STRANGE
    text += f" PSNR {decibels:.1f} dB{usually(entry.usual_psnr, 1)}: the more, the closer."
    if not model.bottleneck.random:
        return text
    noise = torch.Generator().manual_seed(0)
    nats = -model.elbo(model.likelihood.observe(x, noise), noise).item()
    bits = model.likelihood.bits_per_dim(nats, model.config.dims)
    text += f" It surprises the model by {bits:.2f} bits/dim{usually(entry.usual_bits, 2)}"
    return text + f", {nats:,.0f} nats in all: the more, the stranger."


def usually(measured: float | None, digits: int) -> str:
    """What a number was on average for held-out images, if that was measured."""
    return "" if measured is None else f" (usually {measured:.{digits}f})"


def starts(entry: Entry) -> list[Image.Image]:
    """Pictures to start from: held-out images, else new ones, else none."""
    if entry.held_out or not entry.model.prior.samples:
        return entry.held_out
    return to_pil(draws(entry.model, EXAMPLES, seed=0))


def walk(model: BaseAutoencoder) -> dict[str, Any] | None:
    """A round through new images, to look at on arrival."""
    if not model.prior.samples:
        return None
    stops = draws(model, 4, seed=1, temperature=0.8)
    ways = [model.interpolate(stops[i - 1], stops[i], steps=13)[:-1] for i in range(4)]
    hint = "a walk through the latent space: move over it, or drag"
    return sheet(torch.cat(ways), "line", play=True, hint=hint)
