"""How good a model is, on images that it was not trained on. All of them count, each once."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .data import ImageSet
from .models import VAE, BaseAutoencoder

ACTIVE = 0.01  # Burda et al. 2016 (arXiv:1509.00519): a unit is active if Var_x[μ(x)] exceeds this


@torch.inference_mode()
def evaluate(model: BaseAutoencoder, images: ImageSet, seed: int = 0) -> dict[str, Any]:
    """The numbers of evaluation.json: flat, in nats per image unless their name says otherwise.

    `elbo` (with its standard error over images), `reconstruction`, `kl`, `bits_per_dim`,
    `active_units`, `psnr` in dB; what does not apply is absent.
    """
    from torchmetrics.image import PeakSignalNoiseRatio

    model.eval()
    generator = torch.Generator().manual_seed(seed)
    psnr = PeakSignalNoiseRatio(data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))
    psnr.to(model.device)
    elbo, reconstruction, kl, mu = [], [], [], []
    for x in batches(model, images, generator):
        state = generator.get_state()
        out = model(x, generator)
        generator.set_state(state)  # the same noise: elbo is −(reconstruction + kl)
        reconstruction.append(out.metrics["reconstruction"] * len(x))
        kl.append(out.metrics["kl"] * len(x))
        elbo.append(model.elbo(x, generator))
        psnr.update(model.reconstruct(x), x)
        if isinstance(model, VAE):
            mu.append(model.posterior(x)[0])
    bound, n = torch.cat(elbo).double(), len(images)
    return {
        "elbo": bound.mean().item(),
        "elbo_se": (bound.std() / n**0.5).item(),
        "reconstruction": sum(reconstruction).item() / n,
        "kl": sum(kl).item() / n,
        "bits_per_dim": model.likelihood.bits_per_dim(-bound.mean().item(), model.config.dims),
        "active_units": int((torch.cat(mu).var(dim=0) > ACTIVE).sum()),
        "psnr": psnr.compute().item(),
        "images": n,
        "seed": seed,
        "split": images.split,
        "likelihood": model.config.likelihood,
    }


def batches(
    model: BaseAutoencoder, images: ImageSet, generator: torch.Generator, size: int = 256
) -> Iterator[Tensor]:
    """The images in order, as the model's likelihood takes them; the last batch may be short."""
    for start in range(0, len(images), size):
        x = images.batch(slice(start, start + size), model.device)
        yield model.likelihood.observe(x, generator)
