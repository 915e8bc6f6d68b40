"""How good new images are, in numbers and in pictures beside those of a peer.

    python benchmarks/samples.py                # clothes, 10 minutes on two cores
    python benchmarks/samples.py --emoji DIR    # emoji, from a folder of them in parquet files
    python benchmarks/samples.py --minutes 0.5  # a quick look at either

For clothes: the Fréchet distance of Heusel et al. 2017 (arXiv:1706.08500) in the features of a
small classifier, which this script trains first, always from the same seed. It compares only what
is measured by this script. For emoji, of which there are few: how far new ones lie from the nearest
training image. pythae's VAE has the settings that it ships with, for clothes its own network and
for emoji hfvae's; it gets `--minutes`.
Writes samples.json and samples.png, or samples_emoji, to benchmarks/results.
"""

import argparse
import dataclasses
import json
from typing import Any

import peers
import torch
from PIL import Image, ImageDraw
from run import HERE, ROOT, surroundings
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

import hfvae
from hfvae.data import load_images
from hfvae.machine import keep_freed_memory

N = 10_000  # images for each distance
FEW = 300  # and of emoji
SHOWN = 16  # in a row of a picture
PRETRAINED = ROOT / "pretrained"


class Clothes(nn.Module):
    """A classifier of Fashion-MNIST; its features are what the distance is measured in."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, self.num_features),
        )  # fmt: skip
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(self.num_features, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Grey images (B, 1 or 3, 28, 28) in uint8 -> features (B, 64)."""
        return self.body(x[:, :1].float() / 255)

    def learn(self, x: Tensor, labels: Tensor, epochs: int = 3) -> None:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, fused=True)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(256):
                loss = nn.functional.cross_entropy(self.head(self(x[index])), labels[index])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        return (self.head(self(x)).argmax(1) == labels).double().mean().item()


def labelled_clothes(train: bool, data: str | None) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import FashionMNIST

    from hfvae.decoding import CACHE

    found = FashionMNIST(data or CACHE, train=train)
    return found.data[:, None], found.targets


def distance(features: nn.Module, real: Tensor, new: Tensor) -> float:
    """Of images (N, C, H, W) in uint8."""
    fid = FrechetInceptionDistance(features, feature_extractor_weights_path=None)
    for images, is_real in ((real, True), (new, False)):
        for some in images.split(1000):
            fid.update(some, real=is_real)
    return fid.compute().item()


def eight_bits(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def drawn(model: Any, n: int, prior: str | None = None) -> Tensor:
    """New images from a model, or from another prior put in the place of its own."""
    if prior is not None:
        model.prior = None
        model.set_prior(prior)
    return eight_bits(model.sample(n, generator=torch.Generator().manual_seed(0)))


def pythae_as_it_comes(size: tuple[int, ...], latents: int) -> Any:
    from pythae.models import VAE, VAEConfig

    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=size, latent_dim=latents))


def pythae_draws(
    model: Any, components: int, x: Tensor, minutes: float, n: int
) -> dict[str, Tensor]:
    """A VAE of pythae's trained on x: new images from N(0, I) and from its mixture."""
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    latents = model.model_config.latent_dim
    peers.train_pythae(model, x, 60 * minutes)
    model.eval()
    mixture = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
    mixture.fit(x[:10_000])
    with torch.no_grad():
        plain = model.decoder(torch.randn(n, latents)).reconstruction.view(n, *x.shape[1:])
        fitted = mixture.sample(n, batch_size=100, return_gen=True).view(n, *x.shape[1:])
    return {
        "pythae's VAE": eight_bits(plain.clamp(0, 1)),
        "pythae's VAE, mixture": eight_bits(fitted.clamp(0, 1)),
    }


def picture(rows: dict[str, Tensor], scale: int) -> Image.Image:
    """Rows of images, each with its name on the left."""
    strips = [hfvae.grid(x[:SHOWN].float() / 255, columns=SHOWN) for x in rows.values()]
    strips = [s.convert("RGB").resize((s.width * scale, s.height * scale), 0) for s in strips]
    margin, high = 190, strips[0].height + 6
    sheet = Image.new("RGB", (margin + strips[0].width, high * len(strips)), "white")
    for i, (name, strip) in enumerate(zip(rows, strips, strict=True)):
        sheet.paste(strip, (margin, i * high))
        ImageDraw.Draw(sheet).text((6, i * high + high // 2 - 8), name, "black", font_size=14)
    return sheet


def clothes(minutes: float, data: str | None) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    x, labels = labelled_clothes(True, data)
    real, real_labels = labelled_clothes(False, data)
    torch.manual_seed(0)
    features = Clothes()
    features.learn(x, labels)
    accuracy = features.accuracy(real, real_labels)
    features.eval().requires_grad_(False)

    def pretrained(name: str) -> Any:
        return hfvae.from_pretrained(PRETRAINED / name, dtype=torch.float32)

    rows = {
        "training images": x[torch.randperm(len(x))[:N]],
        "vq-vae, its prior": drawn(pretrained("fashion-mnist-vq-vae"), N),
        "vq-vae, uniform codes": drawn(pretrained("fashion-mnist-vq-vae"), N, "uniform"),
        "vae, mixture": drawn(pretrained("fashion-mnist-vae"), N),
        "vae, N(0, I)": drawn(pretrained("fashion-mnist-vae"), N, "standard-normal"),
        **pythae_draws(pythae_as_it_comes((1, 28, 28), 32), 50, x.float() / 255, minutes, N),
    }
    found: list[dict[str, Any]] = [
        {"name": name, "fd": distance(features, real, new), "accuracy": accuracy}
        for name, new in rows.items()
    ]
    return found, rows


def emoji(minutes: float, folder: str) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    x = load_images(folder, "train").pixels
    held_out = load_images(folder, "test").pixels
    torch.manual_seed(0)
    x = x[torch.randperm(len(x))]
    model = hfvae.from_pretrained(PRETRAINED / "emoji-vae", dtype=torch.float32)
    components = model.config.prior_components
    same = hfvae.VAE(dataclasses.replace(model.config, prior="standard-normal"))
    known = torch.cat([x, x.flip(3)]).flatten(1).float() / 255  # it was trained on both

    def nearest(new: Tensor) -> tuple[Tensor, Tensor]:
        """The training image that is closest to each, and its distance: a RMS over pixels."""
        distance, index = torch.cdist(new.flatten(1).float() / 255, known).min(dim=1)
        return (known[index] * 255).to(torch.uint8).view_as(new), distance / known.shape[1] ** 0.5

    rows = {
        "training images": x[:FEW],
        "held-out images": held_out[:FEW],
        "vae, mixture": (new := drawn(model, FEW)),
        "the nearest in training": nearest(new)[0],
        "vae, N(0, I)": drawn(model, FEW, "standard-normal"),
        **pythae_draws(peers.pythae_with(same), components, x.float() / 255, minutes, FEW),
    }
    found: list[dict[str, Any]] = [
        {"name": name, "nearest": nearest(new)[1].median().item()}
        for name, new in rows.items()
        if "training" not in name
    ]
    return found, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3, help="of pythae's training")
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--emoji", metavar="DIR", help="draw emoji instead; where they are")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    name = "samples_emoji" if args.emoji else "samples"
    if not args.worker:
        peers.install()
        given = ["--data", args.data] if args.data else []
        given += ["--emoji", args.emoji] if args.emoji else []
        rows = peers.worker(__file__, "--worker", "--minutes", str(args.minutes), *given)
        which = " --emoji DIR" if args.emoji else ""
        command = f"python benchmarks/samples.py{which} --minutes {args.minutes:g}"
        measured = {"command": command, **surroundings(), **rows}
        (HERE / "results" / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")
        return
    keep_freed_memory()
    if args.emoji:
        found, rows = emoji(args.minutes, args.emoji)
    else:
        found, rows = clothes(args.minutes, args.data)
    sheet = picture(rows, 1 if args.emoji else 2).quantize()  # to 256 colours: a third of the bytes
    sheet.save(HERE / "results" / f"{name}.png", optimize=True)
    print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
