"""What the same minutes buy: hfvae and its peers on the same clothes, by turns.

    python benchmarks/quality.py                          # an hour on two cores
    python benchmarks/quality.py --minutes 0.3 --seeds 1  # a quick look: 8 minutes

The peers' trainers run on networks of their own and on hfvae's; hfvae's on its own and on those of
diffusers. A peer's loss is no likelihood of 8-bit pixels, so each gets the logistic noise that fits
its errors on training images best, which it does not come with. Codes cost log K nats each: no
prior is trained. Writes benchmarks/results/quality.json, medians over the seeds with their spread.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import peers
import torch
from run import fit, medians, write
from torch import Tensor

from hfvae import VAE, VQVAE, VAEConfig, VQVAEConfig
from hfvae import functional as F
from hfvae.data import ImageSet, load_images
from hfvae.evaluate import evaluate
from hfvae.machine import keep_freed_memory
from hfvae.training.budget import Budget

CLOTHES: dict[str, Any] = {"image_size": 28, "channels": 1}
CODES = 256
HELD_OUT = 2_000  # test images, the first ones
NOISES = torch.logspace(-3, 0, 61).log()  # log-scales among which a peer's is chosen

Seen = tuple[Tensor, Tensor, Tensor]  # the image of a drawn z, that of its mean, nats for z


def ours(model: Any, images: ImageSet, test: ImageSet, seconds: float, seed: int) -> dict[str, Any]:
    keep_freed_memory()  # as train.py does; the peers do not
    budget = Budget(None, seconds)
    model = fit(model, images, budget, seed=seed)
    found = evaluate(model, test, samples=0)
    return {
        "images/s": budget.step * 128 / budget.spent,
        "bits_per_dim": found["bits_per_dim"],
        "psnr": found["psnr"],
    }


def theirs(
    model: Any,
    train: Any,
    see: Callable[[Tensor], Seen],
    images: ImageSet,
    test: ImageSet,
    s: float,
) -> dict[str, Any]:
    seen, took = train(model, images.pixels.float() / 255, s)
    model.eval()

    @torch.no_grad()
    def nats(some: ImageSet) -> tuple[Tensor, Tensor, float]:
        """For each noise, −log p(x|z); for z; and the PSNR."""
        errors, price, psnr = [], [], []
        for start in range(0, len(some), 250):
            x = some.pixels[start : start + 250].float() / 255
            drawn, mean, paid = see(x)
            errors.append(torch.stack([F.discretized_logistic_nll(x, drawn, n) for n in NOISES]))
            psnr.append(F.psnr(x, mean.clamp(0, 1)))
            price.append(paid)
        return torch.cat(errors, 1).mean(1), torch.cat(price).mean(), torch.cat(psnr).mean().item()

    known = ImageSet("known", "train", images.pixels[:HELD_OUT])
    noise = nats(known)[0].argmin()
    errors, price, psnr = nats(test)
    dims = test.pixels[0].numel()
    bits = F.bits_per_dim(errors[noise] + price, dims)
    return {"images/s": seen / took, "bits_per_dim": float(bits), "psnr": psnr}


def see_vae(model: Any) -> Callable[[Tensor], Seen]:
    def see(x: Tensor) -> Seen:
        out = model.encoder(x)
        mu, logvar = out.embedding, out.log_covariance
        drawn, mean = (
            model.decoder(z).reconstruction.view_as(x) for z in (F.reparameterize(mu, logvar), mu)
        )
        return drawn, mean, F.gaussian_kl(mu, logvar)

    return see


def see_vq(model: Any) -> Callable[[Tensor], Seen]:
    def see(x: Tensor) -> Seen:
        codes = model.quantizer(model.encoder(x).embedding.permute(0, 2, 3, 1))
        x_hat = model.decoder(codes.quantized_vector).reconstruction
        grid = codes.quantized_indices.flatten(1)
        return x_hat, x_hat, F.uniform_codes_nll(grid, CODES)

    return see


def see_diffusers(model: Any) -> Callable[[Tensor], Seen]:
    def see(x: Tensor) -> Seen:
        q = model.encode(2 * x - 1).latent_dist
        drawn, mean = ((model.decode(z).sample + 1) / 2 for z in (q.sample(), q.mode()))
        return drawn, mean, q.kl()

    return see


def diffusers_in_ours() -> VAE:
    encoder, decoder = peers.diffusers_networks(peers.diffusers_model(1), side=7)
    return VAE(VAEConfig(latent_dim=4 * 7 * 7, **CLOTHES), encoder, decoder)


def row(name: str, minutes: float, seed: int, data: str | None) -> dict[str, Any]:
    """What a worker does."""
    torch.manual_seed(seed)
    images = load_images("fashion-mnist", "train", data_dir=data)
    test = load_images("fashion-mnist", "test", data_dir=data)
    test = dataclasses.replace(test, pixels=test.pixels[:HELD_OUT])
    model = ROWS[name]()
    found = {"parameters": sum(p.numel() for p in model.parameters()) / 1e6}
    if name.startswith("hfvae"):
        return found | ours(model, images, test, 60 * minutes, seed)
    train, see = peers.train_pythae, see_vae
    if "VQ" in name:
        see = see_vq
    if name.startswith("diffusers"):
        train, see = peers.train_diffusers, see_diffusers
    return found | theirs(model, train, see(model), images, test, 60 * minutes)


ROWS: dict[str, Callable[[], Any]] = {
    "pythae VAE, its network": lambda: peers.pythae_model(loss="mse"),
    "pythae VAE, hfvae's network": lambda: peers.pythae_with(VAE(VAEConfig(**CLOTHES))),
    "hfvae VAE": lambda: VAE(VAEConfig(**CLOTHES)),
    "pythae VQ-VAE, hfvae's network": lambda: peers.pythae_with(
        VQVAE(VQVAEConfig(codebook_size=CODES, **CLOTHES))
    ),
    "hfvae VQ-VAE": lambda: VQVAE(VQVAEConfig(codebook_size=CODES, **CLOTHES)),
    "diffusers AutoencoderKL": lambda: peers.diffusers_model(1),
    "hfvae VAE, AutoencoderKL's networks": diffusers_in_ours,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2, help="of training, for each row")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(row(args.worker, args.minutes, args.seed, args.data)))
        return
    peers.install()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for seed in range(args.seeds):
        for name in ROWS:
            words = ["--worker", name, "--seed", str(seed), "--minutes", str(args.minutes)]
            words += ["--data", args.data] if args.data else []
            runs[name].append(peers.worker(__file__, *words))
            print(name, runs[name][-1], flush=True)
    command = f"python benchmarks/quality.py --minutes {args.minutes:g} --seeds {args.seeds}"
    rows = [{"name": name, **medians(found, "bits_per_dim")} for name, found in runs.items()]
    write("quality", command, rows, seeds=args.seeds)


if __name__ == "__main__":
    main()
