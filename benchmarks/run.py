"""Train and measure the rows of one README table, and write benchmarks/results/<table>.json.

    python benchmarks/run.py codebooks --minutes 10     # every row trains for ten minutes
    python benchmarks/run.py codebooks --minutes 1      # a quick look
    python benchmarks/tables.py                         # then: put the results into README.md

`--data DIR` says where Fashion-MNIST and MNIST are, as for train.py's --data_dir.
"""

import argparse
import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from hfvae.machine import best_precision  # noqa: E402
from hfvae.training import Budget, Run, StopOnInterrupt  # noqa: E402


class Row(NamedTuple):
    """One training run: its name, train.py's flags, its share of --minutes, samples to evaluate.

    The samples are for ten minutes, and fewer where there is less time.
    """

    name: str
    flags: str
    share: float = 1.0
    samples: int = 0


TABLES = {
    # The same network, data, time and fixed scale; only beta differs.
    "disentanglement": [
        Row(f"beta = {name}", f"--model beta-vae {flags} --dataset sprites --resolution 32")
        for name, flags in [
            *((beta, f"--beta {beta}") for beta in (1, 16, 64)),
            ("200 falling to 1", "--beta_start 200 --beta 1"),
        ]
    ],
    "codebooks": [
        Row("vq-vae, 256 codes", "--model vq-vae --codebook_size 256 --dataset fashion-mnist"),
        Row("fsq-vae, 256 codes", "--model fsq-vae --codebook_size 256 --dataset fashion-mnist"),
    ],
    # Dynamically binarized MNIST as it grows with time; the last row takes 1000 samples.
    "mnist": [
        Row(
            f"vae, {share:.0%} of the time",
            "--model vae --likelihood bernoulli --dataset mnist",
            share,
            samples,
        )
        for share, samples in [(0.25, 0), (1.0, 1000)]
    ],
}


def measure(row: Row, minutes: float, folder: Path, data: list[str]) -> dict[str, Any]:
    """Train one row and read what was measured on its test set."""
    minutes = minutes * row.share
    command = ["train.py", *row.flags.split(), "--max_train_minutes", f"{minutes:g}"]
    out = folder / row.name.replace(" ", "-").replace(",", "").replace("%", "")
    shutil.rmtree(out, ignore_errors=True)
    run([*command, *data, "--output_dir", str(out)])
    results = out / "evaluation.json"
    if row.samples:
        samples = math.ceil(row.samples * min(1, minutes / 10))
        dataset = row.flags.split("--dataset ")[1].split()[0]
        run(["-m", "hfvae.evaluate", str(out), "--dataset", dataset, *data,
             "--samples", str(samples), "--output", str(results)])  # fmt: skip
    return {
        "name": row.name,
        "command": f"python {' '.join(command)}",
        "minutes": minutes,
        **json.loads(results.read_text()),
    }


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
    run = Run(args, model, images, (budget, Budget(0, None)), accelerator)
    with StopOnInterrupt() as stop:
        run.fit_model(stop)
    accelerator.free_memory()
    return run.model


def surroundings() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
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
    args = parser.parse_args()
    data = ["--data_dir", args.data] if args.data else []
    folder = ROOT / "runs" / "benchmarks" / args.table
    rows = [measure(row, args.minutes, folder, data) for row in TABLES[args.table]]
    out = HERE / "results" / f"{args.table}.json"
    out.parent.mkdir(exist_ok=True)
    command = f"python benchmarks/run.py {args.table} --minutes {args.minutes:g}"
    found = {"command": command} | surroundings() | {"rows": rows}
    out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
