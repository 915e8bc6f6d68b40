"""What fine-tuning saves: bits/dim on held-out digits after so many steps, with and without it.

    python benchmarks/fine_tuning.py

The start is pretrained/fashion-mnist-vae, which has seen clothes; the images are MNIST's, grey.
Writes benchmarks/results/fine_tuning.json.
"""

import argparse
import json
import shutil
from typing import Any

from run import ROOT, run, surroundings

STEPS = (50, 100, 200, 400, 800)
BASE = ROOT / "pretrained" / "fashion-mnist-vae"


def bits_per_dim(name: str, steps: int, data: list[str], extra: list[str]) -> float:
    folder = ROOT / "runs" / "benchmarks" / "fine_tuning" / f"{name}-{steps}"
    shutil.rmtree(folder, ignore_errors=True)
    run(["train.py", "--dataset", "mnist", "--max_train_steps", str(steps), "--output_dir",
         str(folder), "--checkpointing_steps", "0", *data, *extra])  # fmt: skip
    return json.loads((folder / "evaluation.json").read_text())["bits_per_dim"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    data = ["--data_dir", args.data] if args.data else []
    rows: list[dict[str, Any]] = []
    for steps in STEPS:
        scratch = bits_per_dim("scratch", steps, data, [])
        tuned = bits_per_dim("tuned", steps, data, ["--model_name_or_path", str(BASE)])
        rows.append({"name": f"{steps} steps", "scratch": scratch, "tuned": tuned})
        print(rows[-1])
    measured = {"command": "python benchmarks/fine_tuning.py", **surroundings(), "rows": rows}
    out = ROOT / "benchmarks" / "results" / "fine_tuning.json"
    out.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
