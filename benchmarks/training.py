"""How fast training is: beside the bare step, beside the peers, and to a given −ELBO.

    python benchmarks/training.py                 # 25 minutes on two cores
    python benchmarks/training.py --minutes 1     # a quick look: the race takes a tenth

The peers' networks are trained by their own loops and, moved into hfvae, by ours; rounds take
turns, and each is a process of its own. Writes benchmarks/results/training.json and race.json.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import peers
import torch
from hfvae.budget import Budget
from run import HERE, ROOT, fit, surroundings
from run import run as run_script

from hfvae import VAE, VAEConfig
from hfvae.data import ImageSet, load_images
from hfvae.evaluate import evaluate
from hfvae.machine import best_precision, keep_freed_memory

OUT = ROOT / "runs" / "benchmarks" / "training"
STEPS = {28: 80, 64: 20}  # of a round of the overhead, some seconds
ROUNDS = 15
SHARES = (0.01, 0.025, 0.05, 0.1)  # of pythae's minutes, that ours gets in the race


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
        return moved_pythae(peers.pythae_model()), noise_images(6_400, 1, 28), 64
    encoder, decoder = peers.diffusers_networks(peers.diffusers_model())
    config = VAEConfig(image_size=64, latent_dim=4 * 16 * 16, likelihood="gaussian")
    return VAE(config, encoder, decoder), noise_images(2_000, 3, 64), 32


def moved_pythae(model: Any) -> VAE:
    config = VAEConfig(image_size=28, channels=1, latent_dim=32, likelihood="bernoulli")
    return VAE(config, peers.AsEncoder(model.encoder), peers.AsDecoder(model.decoder))


def measure(what: str, seconds: float, data: str | None) -> dict[str, Any]:
    """What a worker does."""
    torch.manual_seed(0)
    name, _, whose = what.partition("-")
    if name == "overhead":
        keep_freed_memory()  # as train.py does; the peers do not
        return overhead(int(whose))
    if name == "race":
        return race(seconds, data)
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


def race(seconds: float, data: str | None) -> dict[str, Any]:
    """pythae's own network and trainer on binarized digits, then the −ELBO of the test set."""
    pixels = load_images("mnist", "train", data_dir=data).pixels.float() / 255
    model = peers.pythae_model()
    seen, took = peers.train_pythae(model, (torch.rand_like(pixels) < pixels).float(), seconds)
    held_out = load_images("mnist", "test", data_dir=data)
    found = evaluate(moved_pythae(model), held_out, samples=0)
    return {"minutes": took / 60, "images": seen, "neg_elbo": -found["elbo"]}


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


def run_race(minutes: float, data: str | None, ask: Any) -> list[dict[str, Any]]:
    theirs = ask("race", 60 * minutes, *(["--data", data] if data else []))
    rows: list[dict[str, Any]] = [{"name": "pythae, its network and trainer"} | theirs]
    for share in SHARES:
        folder = OUT / f"race-{share}"
        run_script(["train.py", "--dataset", "mnist", "--likelihood", "bernoulli",
                    "--max_train_minutes", f"{share * minutes:g}", "--checkpointing_steps", "0",
                    "--output_dir", str(folder), "--overwrite_output_dir",
                    *(["--data_dir", data] if data else [])])  # fmt: skip
        elbo = json.loads((folder / "evaluation.json").read_text())["elbo"]
        rows.append({"name": "hfvae", "minutes": share * minutes, "neg_elbo": -elbo})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="that pythae gets in the race")
    parser.add_argument("--rounds", type=int, default=5, help="of the peers")
    parser.add_argument("--seconds", type=float, default=10, help="of one round")
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args.worker, args.seconds, args.data)))
        return
    peers.install()

    def ask(what: str, seconds: float = 0.0, *more: str) -> dict[str, Any]:
        found = peers.worker(__file__, "--worker", what, "--seconds", str(seconds), *more)
        print(what, found, file=sys.stderr, flush=True)
        return found

    command = f"python benchmarks/training.py --minutes {args.minutes:g}"
    tables = {
        "training": compare(args.rounds, args.seconds, ask),
        "race": run_race(args.minutes, args.data, ask),
    }
    for name, rows in tables.items():
        measured = {"command": command, **surroundings(), "rows": rows}
        Path(HERE, "results", f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
