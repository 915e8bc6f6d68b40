"""Training on 200,000 JPEGs in a folder: peak memory, and how soon the second run starts.

    python benchmarks/large_folder.py

Makes the images first, 64x64, in runs/benchmarks/large_folder (800 MB with their file system's
blocks; pixels of 2.5 GB are kept in ~/.cache/hfvae). Writes benchmarks/results/large_folder.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from run import ROOT, surroundings

FOLDER = ROOT / "runs" / "benchmarks" / "large_folder"
SIDE = 64


def make(start: int, n: int) -> None:
    """Smooth noise, 1,000 images to a folder."""
    folder = FOLDER / "images" / f"{start // 1000:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(start)
    for i in range(start, start + n):
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(folder / f"{i:06d}.jpg", quality=85)


def train(name: str) -> dict[str, Any]:
    """One run of a few steps: seconds to the first of them, and the peak of its memory."""
    out = FOLDER / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        ROOT / "train.py",
        "--dataset",
        FOLDER / "images",
        "--output_dir",
        out,
    ]
    command += ["--max_train_steps", "100"]
    start, first, peak = time.perf_counter(), 0.0, 0
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks = [line for line in status.splitlines() if line.startswith("VmHWM")]
            peak = max([peak, *(int(line.split()[1]) for line in peaks)])
            if not first and b"step" in (process.stderr.read() or b""):
                first = time.perf_counter() - start
            time.sleep(0.05)
    assert process.returncode == 0
    return {"name": name, "first_step_s": first, "peak_gib": peak / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--again", action="store_true", help="the second run alone, once more")
    args = parser.parse_args()
    out = ROOT / "benchmarks" / "results" / "large_folder.json"
    if args.again:
        rows = [json.loads(out.read_text())["rows"][0]]
    else:
        with ProcessPoolExecutor() as pool:
            starts = range(0, args.images, 1000)
            list(pool.map(make, starts, [min(1000, args.images - s) for s in starts]))
        rows = [train("first run")]
    rows.append(train("second run"))
    command = f"python benchmarks/large_folder.py{' --again' * args.again}"
    measured = {"command": command, **surroundings(), "images": args.images, "rows": rows}
    out.write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
