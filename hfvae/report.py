"""What a training says beside the model: pictures, and advice in words."""

import io
from typing import Any

import torch

from .base import BaseAutoencoder
from .data import ImageSet
from .images import grid

PROGRESS = "progress.png"  # new images while it trains
PICTURES = 64  # new images in samples.png; a quarter as many in reconstructions.png


def png(picture: Any) -> bytes:
    """PNG bytes, small pictures enlarged without smoothing."""
    factor = max(1, 500 // picture.width)
    buffer = io.BytesIO()
    picture.resize((picture.width * factor, picture.height * factor), 0).save(buffer, "PNG")
    return buffer.getvalue()


def samples_png(model: BaseAutoencoder) -> bytes:
    """New images, always from the same seed, so that one sees what training changes."""
    return png(grid(model.sample(PICTURES, generator=torch.Generator().manual_seed(0))))


def reconstructions_png(model: BaseAutoencoder, held_out: ImageSet) -> bytes:
    """Rows of held-out images, each above a row of what the model makes of them."""
    # Spread over the set, which may be sorted: the first ones would be of one kind.
    n = min(PICTURES // 4, len(held_out))
    x = held_out.batch(torch.linspace(0, len(held_out) - 1, n).long(), model.device)
    x = model.likelihood.observe(x, torch.Generator().manual_seed(0))
    pairs = [
        torch.cat(rows) for rows in zip(x.split(8), model.reconstruct(x).split(8), strict=True)
    ]
    return png(grid(torch.cat(pairs), columns=min(8, len(x))))


def advice(results: dict[str, Any], model: BaseAutoencoder) -> dict[str, str]:
    """What is wrong with a model and what to change, in words, by what it is about.

    Args:
        results: of `evaluate`, or its latent_metrics and `kl`.
        model: the one that was measured.
    """
    found = {}
    bits, guess = results.get("bits_per_dim", 0), model.likelihood.guess
    if bits > guess:
        found["bits"] = (
            f"it needs {bits:.1f} bits/dim, more than guessing every pixel ({guess}): train "
            "longer, with more --max_train_minutes or --max_train_steps"
        )
    return found | model.bottleneck.advice(results) | model.likelihood.advice()
