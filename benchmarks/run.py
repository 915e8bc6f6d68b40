"""Train and measure the rows of one README table, and write benchmarks/results/<table>.json.

    python benchmarks/run.py families --minutes 2 --seeds 3     # two minutes a row, three times
    python benchmarks/run.py families --minutes 1               # a quick look
    python benchmarks/tables.py                                 # then: put them into README.md

Seeds take turns. `--data DIR` says where Fashion-MNIST and MNIST are, as for train.py's --data_dir.
"""

import argparse
import datetime
import functools
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from frechet import Distance, drawn

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from hfvae.budget import Budget  # noqa: E402

import train  # noqa: E402
from hfvae import from_pretrained  # noqa: E402
from hfvae.machine import best_precision  # noqa: E402
from hfvae.training import Run, StopOnInterrupt  # noqa: E402


class Row(NamedTuple):
    """One training run: its name, train.py's flags, its share of --minutes, samples to evaluate.

    The samples are for ten minutes, and fewer where there is less time.
    """

    name: str
    flags: str
    share: float = 1.0
    samples: int = 0


class Table(NamedTuple):
    """Rows, and which of their numbers has its spread over the seeds in the table."""

    spread_of: str
    rows: list[Row]


TABLES = {
    # The same network, data, time and fixed scale; only beta differs.
    "disentanglement": Table(
        "mig",
        [
            Row(f"beta = {name}", f"--model beta-vae {flags} --dataset sprites --resolution 32")
            for name, flags in [
                *((beta, f"--beta {beta}") for beta in (1, 16, 64)),
                ("200 falling to 1", "--beta_start 200 --beta 1"),
            ]
        ],
    ),
    # Every family on the same clothes; with codes, the time is for the prior too.
    "families": Table(
        "fd",
        [
            Row(name, f"--dataset fashion-mnist {flags}")
            for name, flags in [
                ("autoencoder, mixture", "--model autoencoder"),
                ("vae", "--model vae --prior standard-normal"),
                ("vae, mixture", "--model vae --prior mixture"),
                ("beta-vae, beta = 4", "--model beta-vae --beta 4"),
                ("vq-vae, 256 codes", "--model vq-vae --codebook_size 256"),
                ("fsq-vae, 256 codes", "--model fsq-vae --codebook_size 256"),
            ]
        ],
    ),
    # Dynamically binarized MNIST as it grows with time; the last row takes 1000 samples.
    "mnist": Table(
        "elbo",
        [
            Row(
                f"vae, {share:.0%} of the time",
                "--model vae --prior standard-normal --likelihood bernoulli --dataset mnist",
                share,
                samples,
            )
            for share, samples in [(0.25, 0), (1.0, 1000)]
        ],
    ),
}


def measure(row: Row, minutes: float, seed: int, folder: Path, data: list[str]) -> dict[str, Any]:
    """Train one row and read what was measured on its test set."""
    out = folder / re.sub(r"\W+", "-", f"{row.name} {seed}")
    shutil.rmtree(out, ignore_errors=True)
    run([*training(row, minutes), *data, "--seed", str(seed), "--output_dir", str(out)])
    results = out / "evaluation.json"
    dataset = row.flags.split("--dataset ")[1].split()[0]
    if row.samples:
        samples = math.ceil(row.samples * min(1, minutes / 10))
        run(["-m", "hfvae.evaluate", str(out), "--dataset", dataset, *data,
             "--samples", str(samples), "--output", str(results)])  # fmt: skip
    found = json.loads(results.read_text())
    if dataset == "fashion-mnist":
        model = from_pretrained(out)
        found["fd"] = clothes(data[1] if data else None)(drawn(model))
    return found


@functools.cache
def clothes(data: str | None) -> Distance:
    """Its classifier is trained once for all rows."""
    return Distance(data)


def training(row: Row, minutes: float) -> list[str]:
    """The command without what depends on the machine."""
    return ["train.py", *row.flags.split(), "--max_train_minutes", f"{minutes * row.share:g}"]


def medians(runs: list[dict[str, Any]], spread_of: str) -> dict[str, Any]:
    """Of each number over the seeds, and how far apart those of one lie; one run as it is."""
    numbers = [key for key, value in runs[0].items() if isinstance(value, int | float)]
    found = runs[0] | {key: statistics.median(run[key] for run in runs) for key in numbers}
    if len(runs) > 1:
        values = [run[spread_of] for run in runs]
        found |= {"spread": max(values) - min(values), "runs": runs}
    return found


def run(command: list[str]) -> None:
    print("python", *command, flush=True)
    path = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env=os.environ | path)


def fit(model: Any, images: Any, budget: Budget, batch: int = 128, seed: int = 0) -> Any:
    """Train a model by train.py's trainer, with its defaults, and return what it would save."""
    from accelerate import Accelerator

    args = train.parse(["--train_batch_size", str(batch), "--checkpointing_steps", "0"])
    args.seed = seed
    args.output_dir = ROOT / "runs" / "benchmarks" / "fit"
    accelerator = Accelerator(mixed_precision=best_precision())
    run = Run(args, model, images, (budget, Budget(0, None)), {"model": batch}, accelerator)
    with StopOnInterrupt() as stop:
        run.fit_model(stop)
    accelerator.free_memory()
    return run.model


def surroundings() -> dict[str, Any]:
    """What a figure depends on besides the code."""

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    # Results of other benchmarks, and the README made of them, change nothing of what is measured.
    changed = git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results", ":!README.md")
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
    data = ["--data_dir", args.data] if args.data else []
    folder = ROOT / "runs" / "benchmarks" / args.table
    table = TABLES[args.table]
    runs: dict[Row, list[dict[str, Any]]] = {row: [] for row in table.rows}
    for seed in range(args.seeds):
        for row in table.rows:
            runs[row].append(measure(row, args.minutes, seed, folder, data))
    rows = [
        {
            "name": row.name,
            "command": f"python {' '.join(training(row, args.minutes))}",
            "minutes": args.minutes * row.share,
            **medians(found, table.spread_of),
        }
        for row, found in runs.items()
    ]
    words = f"python benchmarks/run.py {args.table} --minutes {args.minutes:g}"
    command = words + (f" --seeds {args.seeds}" if args.seeds > 1 else "")
    measured = {"command": command, **surroundings(), "seeds": args.seeds, "rows": rows}
    out = HERE / "results" / f"{args.table}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
