"""How good new avatars are, and the pictures half-way between two: of hfvae's models and a peer's.

    python benchmarks/avatars.py
    python benchmarks/avatars.py --minutes 1    # a quick look

Every row but those of training images and of the bundled model is trained for as long, on the same
network. The features are those of a classifier of the avatars' factors. "half-way" is how far, in
these features, the pictures at t = 0.5 between 500 pairs of held-out avatars lie from the nearest
held-out one; it stands beside the same of reconstructions, each without its own original, because
no other avatar is quite the same either. Writes benchmarks/results/avatars.json.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import peers
import torch
from frechet import avatars, drawn, eight_bits
from run import OUT, ROOT, write
from torch import Tensor

import hfvae
from hfvae import functional as F
from hfvae.data import load_images
from hfvae.evaluate import evaluate
from hfvae.machine import keep_freed_memory
from hfvae.training import TrainConfig
from hfvae.training.run import fit, make_accelerator

NETWORK: dict[str, Any] = {"image_size": 64, "latent_dim": 64, "widths": (24, 48, 96, 192)}
BUNDLED = ROOT / "pretrained" / "avatars-flow-vae"
PAIRS = 500
NEW = 2000  # as many as are held out


def nearest(a: Tensor, b: Tensor, but: Tensor | None = None) -> float:
    """The mean distance from features a (N, D) to the nearest of b, not counting b[but[i]]."""
    apart = torch.cdist(a, b)
    if but is not None:
        apart[torch.arange(len(a)), but] = torch.inf
    return apart.min(dim=1).values.mean().item()


class Measure:
    """What is said of a model, by a classifier and the held-out avatars."""

    def __init__(self) -> None:
        self.known, self.held_out = (load_images("avatars", part) for part in ("train", "test"))
        self.distance = avatars(self.known, self.held_out)
        self.images = dataclasses.replace(self.held_out, factors=None, drawn=None)
        self.real = self.held_out.pixels[: 2 * PAIRS].float() / 255
        self.features = self.feature(self.held_out.pixels)

    def feature(self, images: Tensor) -> Tensor:
        return torch.cat([self.distance.features(some) for some in images.split(500)])

    def half_way(self, decode: Callable[[Tensor], Tensor], z: Tensor, path: Any) -> dict[str, Any]:
        """Of latents z (2 · PAIRS, ...) of held-out avatars, in pairs, and the way between two."""
        copies = self.feature(eight_bits(decode(z)))
        ways = self.feature(eight_bits(decode(path(z[:PAIRS], z[PAIRS:], 0.5))))
        found = {
            "half_way": nearest(ways, self.features),
            "copies": nearest(copies, self.features, but=torch.arange(len(z))),
        }
        return found | {"ratio": found["half_way"] / found["copies"]}

    @torch.no_grad()
    def of(self, model: Any) -> dict[str, Any]:
        results = evaluate(model, self.images, samples=0)
        z = torch.cat([model.encode(some) for some in self.real.split(250)])
        found = {name: results[name] for name in ("bits_per_dim", "psnr")}
        found |= {"fd": self.distance(drawn(model, NEW))}
        prior = model.prior

        def path(a: Tensor, b: Tensor, t: float) -> Tensor:
            return prior.from_base(F.slerp(prior.to_base(a), prior.to_base(b), t))

        return found | self.half_way(model.decode, z, path)


def ours(prior: str, minutes: float, measure: Measure) -> Any:
    keep_freed_memory()  # as train.py does
    torch.manual_seed(0)
    model = hfvae.VAE(hfvae.VAEConfig(prior=prior, **NETWORK))
    config = TrainConfig(
        model="vae", prior=prior, max_train_minutes=minutes, use_ema=True, checkpointing_steps=0,
        output_dir=OUT / "avatars",
    )  # fmt: skip
    run, _ = fit(config, model, measure.known, make_accelerator(config), None)
    return run.model


@torch.no_grad()
def straight(measure: Measure, model: Any) -> dict[str, Any]:
    """A flow's model on the straight way in z, for comparison: its draws are those of the flow."""
    z = torch.cat([model.encode(some) for some in measure.real.split(250)])
    return measure.half_way(model.decode, z, F.lerp)


def theirs(minutes: float, measure: Measure) -> dict[str, Any]:
    """pythae's VAE and trainer around our network."""
    torch.manual_seed(0)
    model = peers.pythae_with(hfvae.VAE(hfvae.VAEConfig(**NETWORK)))
    peers.train_pythae(model, measure.known.pixels.float() / 255, 60 * minutes)
    model.eval()

    def decode(z: Tensor) -> Tensor:
        return torch.cat([model.decoder(e).reconstruction for e in z.split(250)]).clamp(0, 1)

    with torch.no_grad():
        z = torch.cat([model.encoder(e).embedding for e in measure.real.split(250)])
        new = decode(
            torch.randn(NEW, NETWORK["latent_dim"], generator=torch.Generator().manual_seed(0))
        )
        psnr = F.psnr(measure.real, decode(z)).mean().item()
        found = {"psnr": psnr, "fd": measure.distance(eight_bits(new))}
        return found | measure.half_way(decode, z, F.lerp)


def rows(minutes: float) -> list[dict[str, Any]]:
    measure = Measure()
    some = measure.known.pixels[:NEW].clone()
    found: list[dict[str, Any]] = [{"name": "training images", "fd": measure.distance(some)}]
    model = hfvae.from_pretrained(BUNDLED)
    found += [
        {"name": "the bundled flow-vae"} | measure.of(model),
        {"name": "the same, straight ways in z"} | straight(measure, model),
        {"name": "flow-vae"} | measure.of(ours("flow", minutes, measure)),
    ]
    vae = ours("mixture", minutes, measure)
    found.append({"name": "vae, mixture"} | measure.of(vae))
    vae.set_prior("standard-normal")  # which it was trained with
    found.append({"name": "vae, N(0, I)"} | measure.of(vae))
    return [*found, {"name": "pythae VAE, hfvae's network"} | theirs(minutes, measure)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each row")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps({"rows": rows(args.minutes)}))
        return
    peers.install()
    found = peers.worker(__file__, "--worker", "--minutes", str(args.minutes))["rows"]
    write("avatars", f"python benchmarks/avatars.py --minutes {args.minutes:g}", found)


if __name__ == "__main__":
    main()
