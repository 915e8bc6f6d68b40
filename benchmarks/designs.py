"""Which networks learn most in a minute: the default beside others, on two data sets.

    python benchmarks/designs.py                  # 15 minutes on two cores
    python benchmarks/designs.py --minutes 0.25   # a quick look

Every row trains a VAE of 32 latents for the same time by the same trainer; the default's settings
are what wins here among convolutions. Writes benchmarks/results/designs.json.
"""

import argparse
from typing import Any

import torch
from run import fit, write
from torch import nn

from hfvae import VAE, VAEConfig
from hfvae.data import load_images
from hfvae.evaluate import evaluate
from hfvae.machine import keep_freed_memory
from hfvae.training.budget import Budget

SETS = {"mnist": "bernoulli", "fashion-mnist": "discretized-logistic"}
DESIGNS: dict[str, dict[str, Any]] = {
    "convolutions 16, 32, 64": {"hidden": 0},
    "the same and a hidden layer of 256": {"hidden": 256},
    "convolutions 32, 64, 128": {"hidden": 0, "widths": (32, 64, 128)},
    "convolutions 32, 64": {"hidden": 0, "widths": (32, 64)},
    "16, 32, 64 and a residual block": {"hidden": 0, "blocks": 1},
    "fully connected 1024, 1024": {},
}


class Dense(nn.Sequential):
    """The fully connected network that wins on digits in little time."""

    def __init__(self, n_in: int, n_out: int, *unflatten: nn.Module) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(n_in, 1024),
            nn.SiLU(),
            nn.Linear(1024, 1024),
            nn.SiLU(),
            nn.Linear(1024, n_out),
            *unflatten,
        )


def make(design: str, likelihood: str) -> VAE:
    torch.manual_seed(0)
    config = VAEConfig(image_size=28, channels=1, likelihood=likelihood, **DESIGNS[design])
    if not design.startswith("fully"):
        return VAE(config)
    latents = config.latent_dim
    return VAE(
        config,
        Dense(config.dims, 2 * latents),
        Dense(latents, config.dims, nn.Unflatten(1, (1, 28, 28))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    keep_freed_memory()
    rows = []
    for design in DESIGNS:
        row: dict[str, Any] = {"name": design}
        for name, likelihood in SETS.items():
            model, budget = make(design, likelihood), Budget(None, 60 * args.minutes)
            row[f"{name} parameters"] = sum(p.numel() for p in model.parameters())
            fitted = fit(model, load_images(name, "train", data_dir=args.data), budget)
            held_out = load_images(name, "test", data_dir=args.data)
            row[f"{name} steps"] = budget.step
            row[name] = -evaluate(fitted, held_out, samples=0)["elbo"]
        print(row, flush=True)
        rows.append(row)
    write("designs", f"python benchmarks/designs.py --minutes {args.minutes:g}", rows)


if __name__ == "__main__":
    main()
