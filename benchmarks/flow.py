"""What makes a VAE with a flow prior learn most in little time: one thing changed at a time.

    python benchmarks/flow.py                      # all rows, minutes each
    python benchmarks/flow.py --rows start ema     # some; those of earlier calls stay

On dynamically binarized MNIST. Writes benchmarks/results/flow.json, each row with its own commit:
what won became the default, and later rows start from there.
"""

import argparse
import json
from typing import Any, NamedTuple

import torch
from run import HERE, fit, surroundings, write

from hfvae import VAE, VAEConfig
from hfvae.data import load_images
from hfvae.evaluate import evaluate
from hfvae.machine import keep_freed_memory
from hfvae.training.budget import Budget
from hfvae.training.stages import some


class Row(NamedTuple):
    """Fields of VAEConfig, fields of TrainConfig, images a step."""

    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    batch: int = 128


START = {"prior": "flow", "prior_layers": 8, "prior_width": 128, "latent_dim": 32, "hidden": 256}
ROWS: dict[str, Row] = {
    "start": Row(),
    "N(0, I)": Row({"prior": "standard-normal"}),
    "moving average": Row(training={"use_ema": True}),
    "hidden layer of 512": Row({"hidden": 512}),
    "batches of 64": Row(batch=64),
}


def measure(row: Row, minutes: float, data: str | None) -> dict[str, Any]:
    torch.manual_seed(0)
    settings = START | row.model
    model = VAE(VAEConfig(image_size=28, channels=1, likelihood="bernoulli", **settings))
    budget, images = Budget(None, 60 * minutes), load_images("mnist", "train", data_dir=data)
    fitted = fit(model, images, budget, row.batch, **row.training)
    held_out = load_images("mnist", "test", data_dir=data)
    found = evaluate(fitted, held_out, samples=0)
    found |= {"steps": budget.step, "parameters": sum(p.numel() for p in model.parameters())}
    weighed = evaluate(fitted, some(held_out, 1000), samples=200)
    return found | {name: weighed[name] for name in ("nll", "nll_se", "samples")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    keep_freed_memory()
    path = HERE / "results" / "flow.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["name"]: row for row in before}
    for name in args.rows:
        commit = surroundings()["commit"]
        found = measure(ROWS[name], args.minutes, args.data)
        rows[name] = {"name": name, "commit": commit, **found}
        print(name, rows[name], flush=True)
        ordered = [rows[name] for name in ROWS if name in rows]
        write("flow", f"python benchmarks/flow.py --minutes {args.minutes:g}", ordered)


if __name__ == "__main__":
    main()
