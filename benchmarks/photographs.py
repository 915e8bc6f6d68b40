"""What a folder of photographs becomes in the same minutes: one vector, codes, a grid of latents.

    python benchmarks/photographs.py --dataset path/to/photos     # 80 minutes on two cores
    python benchmarks/photographs.py --size 64 --minutes 0.5      # a quick look

Without --dataset, 1,000 crops of the two photographs that scikit-learn has; those that are held out
are of other places. The minutes are all that a model gets, its prior's included. AutoencoderKL is
trained as diffusers' own script does it, with a KL weight of 1e-6 and without a GAN; its loss is no
likelihood of 8-bit pixels, so it gets the logistic noise that fits its errors on training images
best. Writes benchmarks/results/photographs.json.
"""

import argparse
import json
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from PIL import Image
from run import write

from hfvae import functional as F
from hfvae.data import ImageSet, load_images
from hfvae.training import TrainConfig, train

OUT = peers.FOLDER.parent
NOISES = torch.linspace(-5, -1, 33)  # log-scales among which a peer's is chosen
FEW = 8  # images that a peer sees at once
THEIRS = "diffusers AutoencoderKL"
ROWS = ["vae", "vq-vae", "spatial-vae", THEIRS]


def crops(folder: Path, count: int = 1000, size: int = 256) -> None:
    """Crops of the left of scikit-learn's photographs to train on, and of the right to test on."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for split, share, n in [("train", (0.0, 0.7), count), ("test", (0.7, 1.0), count // 10)]:
        (folder / split).mkdir(parents=True)
        for i in range(n):
            photo = photos[i % len(photos)]
            left, right = (round(photo.width * place) for place in share)
            side = int(min(photo.height, right - left) * rng.uniform(0.5, 1))
            x, y = rng.integers(left, right - side + 1), rng.integers(photo.height - side + 1)
            crop = photo.crop((x, y, x + side, y + side)).resize(
                (size, size), Image.Resampling.LANCZOS
            )
            crop.save(folder / split / f"{i:04d}.png")


def ours(preset: str, dataset: str, size: int, minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            model=preset, dataset=dataset, resolution=size, max_train_minutes=minutes,
            output_dir=Path(out), overwrite_output_dir=True,
        )  # fmt: skip
        model = train(config)
        results = json.loads(Path(out, "evaluation.json").read_text())
        card = Path(out, "README.md").read_text()
    steps = re.search(r"(\d+) steps of (\d+) images in ([\d.]+) minutes", card)
    assert steps
    seen = int(steps[1]) * int(steps[2]) / max(0.05, float(steps[3])) / 60
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "images/s": seen,
        **{name: results[name] for name in ("bits_per_dim", "psnr", "ssim")},
    }


def theirs(dataset: str, size: int, minutes: float) -> dict[str, Any]:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    sets = [
        load_images(dataset, split, size=(size, size), channels=3) for split in ("train", "test")
    ]
    model = peers.diffusers_model(3, (32, 64, 128) if size <= 128 else (32, 64, 128, 128))
    x = sets[0].pixels.float() / 255
    seen, took = peers.train_diffusers(model, x, 60 * minutes, batch=16)
    model.eval()
    ssim: Any = StructuralSimilarityIndexMeasure(data_range=1.0)

    @torch.no_grad()
    def measured(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor, float]:
        """For each noise, mean −log p(x|z); the mean KL; the PSNR."""
        errors, kl, psnr = [], [], []
        for start in range(0, len(images), FEW):
            x = images.batch(slice(start, start + FEW))
            q = model.encode(2 * x - 1).latent_dist
            drawn, mean = ((model.decode(z).sample + 1) / 2 for z in (q.sample(), q.mode()))
            errors.append(torch.stack([F.discretized_logistic_nll(x, drawn, n) for n in NOISES]))
            kl.append(q.kl())
            psnr.append(F.psnr(x, mean.clamp(0, 1)))
            ssim.update(mean.clamp(0, 1), x)
        return torch.cat(errors, 1).mean(1), torch.cat(kl).mean(), torch.cat(psnr).mean().item()

    noise = measured(ImageSet("known", "train", sets[0].pixels[:64]))[0].argmin()
    ssim.reset()
    errors, kl, psnr = measured(sets[1])
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "images/s": seen / took,
        "bits_per_dim": float(F.bits_per_dim(errors[noise] + kl, x[0].numel())),
        "psnr": psnr,
        "ssim": float(ssim.compute()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", help="a folder of photographs")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        todo = args.dataset, args.size, args.minutes
        found = theirs(*todo) if args.worker == THEIRS else ours(args.worker, *todo)
        found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found))
        return
    if THEIRS in args.rows:
        peers.install()
    dataset = args.dataset or str(OUT / "crops")
    if not Path(dataset).exists():
        crops(Path(dataset))
    rows = []
    for name in args.rows:
        words = ["--dataset", dataset, "--size", str(args.size), "--minutes", str(args.minutes)]
        rows.append({"name": name, **peers.worker(__file__, "--worker", name, *words)})
        print(rows[-1], flush=True)
    write("photographs", " ".join(["python benchmarks/photographs.py", *sys.argv[1:]]), rows)


if __name__ == "__main__":
    main()
