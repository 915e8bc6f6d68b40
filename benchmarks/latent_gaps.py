"""Why an autoencoder cannot sample: its latents beside those of a VAE with the same network.

    python benchmarks/latent_gaps.py --minutes 2

Writes benchmarks/results/latent_gaps.png, for each model images decoded from N(0, I) and a map of
its first two latents over the test set with the circle that holds 86 % of N(0, I); and the distance
of all latents from N(0, I), the KL of a Gaussian of their mean and covariance, to the JSON beside.
"""

import argparse
import json
from typing import Any

import torch
from PIL import Image, ImageDraw
from run import HERE, OUT, write
from torch import Tensor

import hfvae
from hfvae.data import load_images
from hfvae.training import TrainConfig, train

DIM, SIDE, REACH = 16, 238, 6.0  # latents; pixels of a map; what it shows of either latent, ±


def distance(z: Tensor) -> float:
    """KL(N(mean, covariance of z) ‖ N(0, I)) = ½ (tr Σ + μ·μ − D − log det Σ), in nats."""
    mean, covariance = z.mean(0), torch.cov(z.T)
    trace, volume = covariance.trace(), torch.logdet(covariance)
    return 0.5 * (trace + mean @ mean - z.shape[1] - volume).item()


def latent_map(z: Tensor) -> Image.Image:
    """Where the first two latents are, dark for many, and the circle of radius 2."""
    edges = torch.linspace(-REACH, REACH, 60)
    counts = torch.histogramdd(z[:, :2].contiguous(), [edges, edges]).hist
    shade = 255 - 255 * (counts / counts.max()).sqrt()
    picture = Image.fromarray(shade.T.to(torch.uint8).numpy()).resize((SIDE, SIDE), 0)
    radius = 2 / REACH * SIDE / 2
    middle = SIDE / 2
    box = (middle - radius, middle - radius, middle + radius, middle + radius)
    ImageDraw.Draw(picture).ellipse(box, outline=0, width=2)
    return picture


def look(name: str, minutes: float, data: str | None) -> tuple[dict[str, Any], list[Image.Image]]:
    folder = OUT / "latent_gaps" / name
    config = TrainConfig(
        model=name, dataset="fashion-mnist", data_dir=data, latent_dim=DIM,
        max_train_minutes=minutes, output_dir=folder, overwrite_output_dir=True,
    )  # fmt: skip
    model = train(config)
    test = load_images("fashion-mnist", "test", data_dir=data)
    with torch.inference_mode():
        batches = (test.batch(slice(i, i + 500)) for i in range(0, 10_000, 500))
        z = torch.cat([model.infer(x).events() for x in batches])  # of q(z|x), not only its mean
        noise = torch.randn(64, DIM, generator=torch.Generator().manual_seed(0))
        samples = hfvae.grid(model.decode(noise), columns=8)
    psnr = json.loads((folder / "evaluation.json").read_text())["psnr"]
    row = {"name": name, "distance": distance(z.double()), "psnr": psnr}
    return row, [samples, latent_map(z)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows, pictures = [], []
    for name in ("autoencoder", "vae"):
        row, both = look(name, args.minutes, args.data)
        rows.append(row)
        pictures += [picture.resize((SIDE, SIDE), 0) for picture in both]
    write("latent_gaps", f"python benchmarks/latent_gaps.py --minutes {args.minutes:g}", rows)
    picture = hfvae.grid(pictures, columns=4).resize((4 * SIDE, SIDE))
    picture.save(HERE / "results" / "latent_gaps.png")


if __name__ == "__main__":
    main()
