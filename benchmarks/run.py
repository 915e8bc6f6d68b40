"""Train and measure the rows of one table, and write benchmarks/results/<table>.json.

    python benchmarks/run.py families --minutes 2 --seeds 3     # two minutes a row, three times
    python benchmarks/run.py families --minutes 1               # a quick look
    python benchmarks/tables.py                                 # then: put them into the documents

Seeds take turns. `--data DIR` says where Fashion-MNIST and MNIST are, as for train.py's --data_dir.
"""

import argparse
import datetime
import functools
import json
import math
import platform
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from frechet import clothes, drawn

from hfvae.base import BaseAutoencoder
from hfvae.data import ImageSet, load_images
from hfvae.evaluate import evaluate
from hfvae.training import TrainConfig, train
from hfvae.training.budget import Budget
from hfvae.training.loop import Run
from hfvae.training.model import ModelStage
from hfvae.training.progress import StopOnInterrupt
from hfvae.training.run import make_accelerator

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = ROOT / "runs" / "benchmarks"
# Results of other benchmarks, and documents made of them, change nothing of what is measured.
NOT_CODE = (":!benchmarks/results", ":!*.md", ":!docs/*.jpg")


class Row(NamedTuple):
    """One training run: its name, fields of TrainConfig, samples to evaluate.

    The samples are for ten minutes, and fewer where there is less time.
    """

    name: str
    settings: dict[str, Any]
    samples: int = 0

    def config(self, minutes: float, **more: Any) -> TrainConfig:
        return TrainConfig(**self.settings, max_train_minutes=minutes, **more)


class Table(NamedTuple):
    """Rows, and which of their numbers has its spread over the seeds in the table."""

    spread_of: str
    rows: list[Row]


SPRITES = {"model": "beta-vae", "dataset": "sprites", "resolution": 32}
BINARY = {"dataset": "mnist", "likelihood": "bernoulli"}
TABLES = {
    # The same network, data, time and fixed scale; only beta differs.
    "disentanglement": Table(
        "mig",
        [
            *(Row(f"beta = {beta}", SPRITES | {"beta": beta}) for beta in (1, 16, 64)),
            Row("beta = 200 falling to 1", SPRITES | {"beta_start": 200, "beta": 1}),
        ],
    ),
    # Every family on the same clothes; with codes, the time is for the prior too.
    "families": Table(
        "fd",
        [
            Row(name, {"dataset": "fashion-mnist"} | settings)
            for name, settings in [
                ("autoencoder, mixture", {"model": "autoencoder"}),
                ("vae", {"model": "vae", "prior": "standard-normal"}),
                ("vae, mixture", {"model": "vae", "prior": "mixture"}),
                ("flow-vae", {"model": "flow-vae"}),
                ("beta-vae, beta = 4", {"model": "beta-vae", "beta": 4}),
                ("vq-vae, 256 codes", {"model": "vq-vae", "codebook_size": 256}),
                ("fsq-vae, 256 codes", {"model": "fsq-vae", "codebook_size": 256}),
            ]
        ],
    ),
    # Dynamically binarized MNIST, by importance sampling with 1000 samples.
    "mnist": Table(
        "elbo",
        [
            Row("vae", BINARY | {"model": "vae", "prior": "standard-normal"}, samples=1000),
            Row("flow-vae", BINARY | {"model": "flow-vae"}, samples=1000),
        ],
    ),
}


def measure(row: Row, minutes: float, seed: int, folder: Path, data: str | None) -> dict[str, Any]:
    """Train one row and read what was measured on its test set."""
    out = folder / re.sub(r"\W+", "-", f"{row.name} {seed}")
    where = {"data_dir": data, "output_dir": out, "overwrite_output_dir": True}
    model = train(row.config(minutes, seed=seed, **where))
    found = json.loads((out / "evaluation.json").read_text())
    dataset = row.settings["dataset"]
    if row.samples:
        held_out = load_images(dataset, "test", data_dir=data)
        found = evaluate(model, held_out, samples=math.ceil(row.samples * min(1, minutes / 10)))
    if dataset == "fashion-mnist":
        found["fd"] = distance_of_clothes(data)(drawn(model))
    return found


distance_of_clothes = functools.cache(clothes)  # its classifier is trained once for all rows


def medians(runs: list[dict[str, Any]], spread_of: str) -> dict[str, Any]:
    """Of each number over the seeds, and how far apart those of one lie; one run as it is."""
    numbers = [key for key, value in runs[0].items() if isinstance(value, int | float)]
    found = runs[0] | {key: statistics.median(run[key] for run in runs) for key in numbers}
    if len(runs) > 1:
        values = [run[spread_of] for run in runs]
        found |= {"spread": max(values) - min(values), "runs": runs}
    return found


def fit(
    model: BaseAutoencoder,
    images: ImageSet,
    budget: Budget,
    batch: int = 128,
    seed: int = 0,
    **settings: Any,
) -> BaseAutoencoder:
    """Train a model by hfvae's trainer, with other settings than its defaults if there are any,
    and return what it would save."""
    folder = OUT / "fit"
    config = TrainConfig(seed=seed, checkpointing_steps=0, output_dir=folder, **settings)
    accelerator = make_accelerator(config)
    run = Run(
        config, model, images, {"model": budget}, {"model": batch}, accelerator, config.folder
    )
    with StopOnInterrupt() as stop:
        run.train(ModelStage(run), stop)
    accelerator.free_memory()
    return run.model


def write(name: str, command: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """benchmarks/results/<name>.json: the rows, and what they depend on."""
    measured = {"command": command, **surroundings(), **more, "rows": rows}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")


def surroundings() -> dict[str, Any]:
    """What a figure depends on besides the code."""

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "-uno", "--", ".", *NOT_CODE)
    commit = git("describe", "--always") + "-dirty" * bool(changed)
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else (
        f"{threads} core{'s' * (threads > 1)}, {platform.machine()}"
    )  # fmt: skip
    date = datetime.date.today().isoformat()
    return {"date": date, "commit": commit, "hardware": device, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    table = TABLES[args.table]
    runs: dict[str, list[dict[str, Any]]] = {row.name: [] for row in table.rows}
    for seed in range(args.seeds):
        for row in table.rows:
            found = measure(row, args.minutes, seed, OUT / args.table, args.data)
            runs[row.name].append(found)
    rows = [
        {
            "name": row.name,
            "command": row.config(args.minutes).command(),
            "minutes": args.minutes,
            **medians(runs[row.name], table.spread_of),
        }
        for row in table.rows
    ]
    command = f"python benchmarks/run.py {args.table} --minutes {args.minutes:g}"
    command += f" --seeds {args.seeds}" * (args.seeds > 1)
    write(args.table, command, rows, seeds=args.seeds)


if __name__ == "__main__":
    main()
