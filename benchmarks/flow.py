"""What makes a VAE with a flow prior learn most in little time: one thing changed at a time.

    python benchmarks/flow.py                         # all rows, about an hour of one core
    python benchmarks/flow.py --rows start "N(0, I)"   # some; those of earlier calls stay

On dynamically binarized MNIST. Writes benchmarks/results/flow.json, each row with its own commit.
A row whose steps take longer gets fewer, in proportion, so that a busy machine changes nothing.
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


class Row(NamedTuple):
    """A training of a VAE.

    Attributes:
        share: of the steps, since those of this row take longer: measured with two threads.
        model: fields of VAEConfig.
        training: fields of TrainConfig.
        batch: images a step.
    """

    share: float = 1.0
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    batch: int = 128


START = {"prior": "flow", "prior_layers": 8, "prior_width": 128, "latent_dim": 32, "hidden": 256}
WIDER = {"hidden": 512}
ROWS: dict[str, Row] = {
    "start": Row(),
    "N(0, I)": Row(1.25, {"prior": "standard-normal"}),
    "widths 32, 64, 128": Row(0.65, {"widths": (32, 64, 128)}),
    "hidden layer of 512": Row(0.95, WIDER),
    "hidden layer of 1024": Row(0.85, {"hidden": 1024}),
    "hidden 512, widths 32, 64, 128": Row(0.6, WIDER | {"widths": (32, 64, 128)}),
    "hidden 512, learning rate 4e-3": Row(0.95, WIDER, {"learning_rate": 4e-3}),
    "hidden 512, learning rate 1e-3": Row(0.95, WIDER, {"learning_rate": 1e-3}),
    "hidden 512, 40 latents": Row(0.95, WIDER | {"latent_dim": 40}),
    "hidden 512, 4 couplings of 256": Row(1.0, WIDER | {"prior_layers": 4, "prior_width": 256}),
    "hidden 512, batches of 64": Row(1.4, WIDER, batch=64),
    "hidden 512, batches of 256": Row(0.55, WIDER, batch=256),
    "hidden 512, moving average": Row(0.95, WIDER, {"use_ema": True}),
    "hidden 512, KL warm-up of a tenth": Row(0.95, WIDER, {"kl_warmup_steps": 570}),
}


def measure(row: Row, steps: int, data: str | None) -> dict[str, Any]:
    torch.manual_seed(0)
    settings = START | row.model
    model = VAE(VAEConfig(image_size=28, channels=1, likelihood="bernoulli", **settings))
    budget = Budget(round(steps * row.share), None)
    images = load_images("mnist", "train", data_dir=data)
    fitted = fit(model, images, budget, row.batch, **row.training)
    held_out = load_images("mnist", "test", data_dir=data)
    found = evaluate(fitted, held_out, samples=0)
    found |= {"steps": budget.step, "parameters": sum(p.numel() for p in model.parameters())}
    weighed = evaluate(fitted, held_out.first(1000), samples=200)
    return found | {name: weighed[name] for name in ("nll", "nll_se", "samples")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    keep_freed_memory()
    path = HERE / "results" / "flow.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["name"]: row for row in before}
    for name in args.rows:
        commit = surroundings()["commit"]
        found = measure(ROWS[name], args.steps, args.data)
        rows[name] = {"name": name, "commit": commit, **found}
        print(name, rows[name], flush=True)
        ordered = [rows[name] for name in ROWS if name in rows]
        write("flow", f"python benchmarks/flow.py --steps {args.steps}", ordered)


if __name__ == "__main__":
    main()
