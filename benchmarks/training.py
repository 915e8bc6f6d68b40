"""How fast training is: beside the bare step, and beside the peers.

    python benchmarks/training.py                            # ten minutes on two cores
    python benchmarks/training.py --rounds 1 --seconds 3     # a quick look

The peers' networks are trained by their own loops and, moved into hfvae, by ours; rounds take
turns, and each is a process of its own. Writes benchmarks/results/training.json.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import peers
import torch
from run import fit, write

from hfvae import VAE, VAEConfig
from hfvae.data import ImageSet
from hfvae.machine import best_precision, keep_freed_memory
from hfvae.training.budget import Budget

STEPS = {28: 80, 64: 20}  # of a round of the overhead, some seconds
ROUNDS = 15


def noise_images(n: int, channels: int, side: int) -> ImageSet:
    pixels = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8)
    return ImageSet("noise", "train", pixels)


def ours(model: VAE, images: ImageSet, budget: Budget, batch: int) -> float:
    """Our trainer's seconds."""
    fit(model, images, budget, batch)
    return budget.spent


def bare(model: VAE, images: ImageSet, steps: int, batch: int) -> float:
    """The step and nothing else, in the same precision and memory layout."""
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)
    start = time.perf_counter()
    for index in torch.randint(len(images), (steps, batch)):
        x = (images.pixels[index].float() / 255).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=best_precision() == "bf16"):
            loss = model(x).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def overhead(side: int) -> dict[str, Any]:
    """Our trainer and the bare step by turns; images/s of each, and the ratio of the medians."""
    channels, steps, batch = {28: 1, 64: 3}[side], STEPS[side], 128
    images = noise_images(10_000, channels, side)
    model = VAE(VAEConfig(image_size=side, channels=channels))
    ours(model, images, Budget(5, None), batch)
    bare(model, images, 5, batch)
    times = [
        (bare(model, images, steps, batch), ours(model, images, Budget(steps, None), batch))
        for _ in range(ROUNDS)
    ]
    return {
        "other": statistics.median(steps * batch / b for b, _ in times),
        "ours": statistics.median(steps * batch / o for _, o in times),
        "ratio": statistics.median(b for b, _ in times) / statistics.median(o for _, o in times),
    }


def moved(peer: str) -> tuple[VAE, ImageSet, int]:
    """A peer's network inside hfvae, images of its size, and its batch."""
    if peer == "pythae":
        model = peers.pythae_model()
        config = VAEConfig(image_size=28, channels=1, latent_dim=32, likelihood="bernoulli")
        networks = peers.AsEncoder(model.encoder), peers.AsDecoder(model.decoder)
        return VAE(config, *networks), noise_images(6_400, 1, 28), 64
    networks = peers.diffusers_networks(peers.diffusers_model())
    config = VAEConfig(image_size=64, latent_dim=4 * 16 * 16, likelihood="gaussian")
    return VAE(config, *networks), noise_images(2_000, 3, 64), 32


def measure(what: str, seconds: float) -> dict[str, Any]:
    """What a worker does."""
    torch.manual_seed(0)
    name, _, whose = what.partition("-")
    if name == "overhead":
        keep_freed_memory()  # as train.py does; the peers do not
        return overhead(int(whose))
    if whose == "ours":
        keep_freed_memory()
        model, images, batch = moved(name)
        ours(model, images, Budget(3, None), batch)
        budget = Budget(None, seconds)
        return {"images/s": batch / ours(model, images, budget, batch) * budget.step}
    _, images, _ = moved(name)
    x = images.pixels.float() / 255
    model = getattr(peers, f"{name}_model")()
    train_peer = getattr(peers, f"train_{name}")
    train_peer(model, x[:200], 1.0)
    seen, took = train_peer(model, x, seconds)
    return {"images/s": seen / took}


def compare(rounds: int, seconds: float, ask: Any) -> list[dict[str, Any]]:
    rows = [{"name": f"the bare step, {side}x{side}"} | ask(f"overhead-{side}") for side in STEPS]
    for peer, name in (("pythae", "pythae's trainer"), ("diffusers", "diffusers' loop")):
        pairs = [
            (ask(peer, seconds)["images/s"], ask(f"{peer}-ours", seconds)["images/s"])
            for _ in range(rounds)
        ]
        theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
        row = {"name": f"{name}, its network", "other": theirs, "ours": own, "ratio": own / theirs}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of the peers")
    parser.add_argument("--seconds", type=float, default=10, help="of one round")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args.worker, args.seconds)))
        return
    peers.install()

    def ask(what: str, seconds: float = 0.0) -> dict[str, Any]:
        found = peers.worker(__file__, "--worker", what, "--seconds", str(seconds))
        print(what, found, file=sys.stderr, flush=True)
        return found

    command = "python benchmarks/training.py"
    command += f" --rounds {args.rounds}" * (args.rounds != parser.get_default("rounds"))
    command += f" --seconds {args.seconds:g}" * (args.seconds != parser.get_default("seconds"))
    write("training", command, compare(args.rounds, args.seconds, ask))


if __name__ == "__main__":
    main()
