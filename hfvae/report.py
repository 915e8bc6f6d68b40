"""What a training says beside the model: pictures, and advice in words."""

import io
import json
import math
from typing import Any

import torch

from .data import ImageSet
from .images import grid
from .likelihoods import Scaled
from .models import VAE, VQVAE, BaseAutoencoder

PICTURES = 64  # new images in samples.png; a quarter as many in reconstructions.png
PATCHWORK = 0.6  # of what codes cost one by one: a prior that charges more knows no whole images
FAR = 20.0  # nats of KL for each latent: a mean over six standard deviations of the prior away


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
    guess = 1 if model.config.likelihood == "bernoulli" else 8
    if results.get("bits_per_dim", 0) > guess:
        found["bits"] = (
            f"it needs {results['bits_per_dim']:.1f} bits/dim, more than guessing every pixel "
            f"({guess}): train longer, with more --max_train_minutes or --max_train_steps"
        )
    if isinstance(model, VQVAE) and results["perplexity"] < model.config.codebook_size / 10:
        found["codes"] = (
            f"the codes are used like {results['perplexity']:.0f} of {model.config.codebook_size}: "
            "use a smaller --codebook_size, --model fsq-vae, or more --max_train_minutes"
        )
    if isinstance(model, VQVAE) and "elbo" in results:
        rate = -results["elbo"] - results["reconstruction"]
        apart = math.prod(model.latent_shape[1:]) * math.log(results["perplexity"])
        if rate > PATCHWORK * apart:
            found["prior"] = (
                f"its prior has hardly begun: the codes of an image cost {rate:.0f} nats under it, "
                f"and {apart:.0f} if each came without regard to the others, so new images will be "
                "patchwork; give it more --max_train_minutes or a larger --prior_fraction"
            )
    if isinstance(model, VAE):
        active, latents = results["active_units"], model.config.latent_dim
        if active < latents / 4:
            found["active units"] = (
                f"only {active} of {latents} latents carry information: add --max_train_minutes, "
                "lower --beta or add --kl_warmup_steps; if the pictures are good, use fewer "
                "--latent_dim"
            )
        if results["kl"] > FAR * latents:
            found["kl"] = (
                f"the KL is {results['kl']:.0f} nats, {results['kl'] / latents:.0f} for each "
                "latent: they lie far outside the prior, and new images will be poor; raise "
                "--beta or --latent_dim, or lower --learning_rate"
            )
    likelihood = model.likelihood
    if isinstance(likelihood, Scaled) and likelihood.fixed is None:
        above_floor = likelihood.log_scale(likelihood.raw_scale) - likelihood.log_floor
        if above_floor.max() < 0.1:
            found["scale"] = (
                "the likelihood's scale has shrunk to its floor: pixels are fitted all but exactly "
                "and the KL weighs next to nothing; --model beta-vae fixes the scale"
            )
    return found


def as_json(values: dict[str, Any]) -> bytes:
    """A file of settings or numbers."""
    return (json.dumps(values, indent=2, default=str) + "\n").encode()
