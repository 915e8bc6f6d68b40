"""How good new images are, in numbers and in pictures beside those of a peer.

    python benchmarks/samples.py                # 10 minutes on two cores
    python benchmarks/samples.py --minutes 0.5  # a quick look

The Fréchet distance of frechet.py, of clothes. pythae's VAE has the network and the settings that
it ships with, and gets `--minutes`. Writes samples.json and samples.png to benchmarks/results.
"""

import argparse
import json
from typing import Any

import peers
import torch
from frechet import N, clothes, drawn, eight_bits
from PIL import Image, ImageDraw
from run import HERE, ROOT, write
from torch import Tensor

import hfvae
from hfvae.machine import keep_freed_memory

SHOWN = 16  # in a row of a picture
PRETRAINED = ROOT / "pretrained"


def with_prior(model: Any, prior: str) -> Any:
    """The same model with another prior in the place of its own."""
    model.set_prior(prior)
    return model


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


def picture(rows: dict[str, Tensor]) -> Image.Image:
    """Rows of images, each with its name on the left."""
    strips = [hfvae.grid(x[:SHOWN].float() / 255, columns=SHOWN) for x in rows.values()]
    strips = [s.convert("RGB").resize((2 * s.width, 2 * s.height), 0) for s in strips]
    margin, high = 190, strips[0].height + 6
    sheet = Image.new("RGB", (margin + strips[0].width, high * len(strips)), "white")
    for i, (name, strip) in enumerate(zip(rows, strips, strict=True)):
        sheet.paste(strip, (margin, i * high))
        ImageDraw.Draw(sheet).text((6, i * high + high // 2 - 8), name, "black", font_size=14)
    return sheet


def rows_of_clothes(
    minutes: float, data: str | None
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    distance = clothes(data)

    def pretrained(name: str) -> Any:
        return hfvae.from_pretrained(PRETRAINED / name)

    x = distance.known
    rows = {
        "training images": x[torch.randperm(len(x))[:N]],
        "vq-vae, its prior": drawn(pretrained("fashion-mnist-vq-vae")),
        "vq-vae, uniform codes": drawn(with_prior(pretrained("fashion-mnist-vq-vae"), "uniform")),
        "vae, mixture": drawn(pretrained("fashion-mnist-vae")),
        "vae, N(0, I)": drawn(with_prior(pretrained("fashion-mnist-vae"), "standard-normal")),
        **pythae_draws(pythae_as_it_comes((1, 28, 28), 32), 50, x.float() / 255, minutes, N),
    }
    found: list[dict[str, Any]] = [
        {"name": name, "fd": distance(new), "accuracy": distance.accuracies.item()}
        for name, new in rows.items()
    ]
    return found, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3, help="of pythae's training")
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.worker:
        peers.install()
        given = ["--data", args.data] if args.data else []
        rows = peers.worker(__file__, "--worker", "--minutes", str(args.minutes), *given)["rows"]
        write("samples", f"python benchmarks/samples.py --minutes {args.minutes:g}", rows)
        return
    keep_freed_memory()
    found, rows = rows_of_clothes(args.minutes, args.data)
    sheet = picture(rows).quantize()  # to 256 colours: a third of the bytes
    sheet.save(HERE / "results" / "samples.png", optimize=True)
    print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
