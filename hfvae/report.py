"""What a training leaves behind beside the model: pictures, and advice in words."""

import io
import json
from typing import Any

import torch

from .data import ImageSet
from .images import grid
from .models import VAE, VQVAE, BaseAutoencoder

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
    x = held_out.batch(slice(PICTURES // 4), model.device)
    x = model.likelihood.observe(x, torch.Generator().manual_seed(0))
    pairs = [
        torch.cat(rows) for rows in zip(x.split(8), model.reconstruct(x).split(8), strict=True)
    ]
    return png(grid(torch.cat(pairs), columns=min(8, len(x))))


def advice(results: dict[str, Any], model: BaseAutoencoder) -> str | None:
    """Words for a model whose latents have collapsed."""
    if isinstance(model, VQVAE) and results["perplexity"] < model.config.codebook_size / 10:
        return (
            f"the codes are used like {results['perplexity']:.0f} of {model.config.codebook_size}: "
            "use a smaller codebook, --model fsq-vae, or train longer"
        )
    if not isinstance(model, VAE):
        return None
    active, latents = results["active_units"], model.config.latent_dim
    if active >= latents / 4:
        return None
    return (
        f"only {active} of {latents} latents carry information: lower --beta, add "
        "--kl_warmup_steps, or train longer; if the pictures are good, use fewer --latent_dim"
    )


def as_json(values: dict[str, Any]) -> bytes:
    """A file of settings or numbers."""
    return (json.dumps(values, indent=2, default=str) + "\n").encode()
