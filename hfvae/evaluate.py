"""How good a model is, on images that it was not trained on. All of them count, each once.

python -m hfvae.evaluate runs/photos-vae --dataset path/to/photos --samples 100
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import functional as F
from .base import BaseAutoencoder
from .data import ImageSet, load_images
from .data.drawn import Drawn
from .disentanglement import dci, factor_vae_score, mig, sap
from .errors import NEEDS_TRAIN, expand
from .hub import as_json, check_output, write_folder
from .machine import keep_freed_memory
from .models import from_pretrained

LARGEST_BATCH = 2**20  # numbers in a batch of images
EXPLAINED = 0.5  # how much of a latent's variance the factor explains that it is called after
FACTOR_SAMPLES = 10_000  # for the disentanglement scores, as their papers have it


@torch.inference_mode()
def evaluate(
    model: BaseAutoencoder, images: ImageSet, seed: int = 0, samples: int | None = None
) -> dict[str, Any]:
    """The numbers of evaluation.json: flat, in nats per image unless their name says otherwise.

    What does not apply to a model or a data set is absent.

    Args:
        model: any family.
        images: held-out ones.
        seed: of binarization, dequantization and the noise of z.
        samples: for the importance-sampled −log p(x) of a VAE; 0 leaves it out, and None is
            `weighed` of its latents: a quick look.
    """
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    model.eval()
    latents = model.bottleneck
    samples = latents.weighed if samples is None else samples
    ssim: Any = StructuralSimilarityIndexMeasure(data_range=1.0).to(model.device)
    large_enough = min(model.config.size) >= 11  # for the window of SSIM
    # Noise apart from that of the data, which must not depend on the family or on `samples`.
    noise = torch.Generator().manual_seed(seed + 1)
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    for x in batches(model, images, seed):
        posterior = model.infer(x)
        measured = model.score(x, posterior, noise)
        found["nll"].append(measured.nll)
        found["rate"].append(measured.rate)
        if samples and latents.density:
            found["bound"].append(-model.importance_bound(x, posterior, samples, noise))
        found["tally"].append(latents.tally(posterior))
        x_hat = model.decode(latents.quantize(posterior.mode()))
        found["psnr"].append(F.psnr(x, x_hat))
        if large_enough:
            ssim.update(x_hat, x)

    n, dims, likelihood = len(images), model.config.dims, model.likelihood
    nll, rate = torch.cat(found["nll"]), torch.cat(found["rate"])
    results: dict[str, Any] = {}
    if latents.random:
        results["elbo"], results["elbo_se"] = _mean_and_error(-nll - rate)
        results["bits_per_dim"] = likelihood.bits_per_dim(-results["elbo"], dims)
    results["reconstruction"], _ = _mean_and_error(nll)
    if bound := found["bound"]:
        results["nll"], results["nll_se"] = _mean_and_error(torch.cat(bound))
        results["nll_bits_per_dim"] = likelihood.bits_per_dim(results["nll"], dims)
        results["samples"] = samples
    results |= latents.summary(found["tally"], rate)
    results["psnr"], _ = _mean_and_error(torch.cat(found["psnr"]))
    if large_enough:
        results["ssim"] = float(ssim.compute())
    if images.drawn is not None and len(model.latent_shape) == 1:
        results |= disentanglement(model, images.drawn, seed)
    return results | {
        "images": n,
        "seed": seed,
        "split": images.split,
        "likelihood": model.config.likelihood,
    }


@torch.inference_mode()
def latent_metrics(model: BaseAutoencoder, images: ImageSet, seed: int) -> dict[str, Any]:
    """What the latents of a set say, without the rest: active units, or perplexity and usage."""
    latents = model.bottleneck
    found = [latents.tally(model.infer(x)) for x in batches(model, images, seed)]
    return latents.summary(found)


def disentanglement(model: BaseAutoencoder, drawn: Drawn, seed: int) -> dict[str, float]:
    """All scores, on images of a set of known factors.

    And `latent_x`, the number of the latent that varies with the factor x, where the prior's base
    is, and so on.
    """
    generator = torch.Generator().manual_seed(seed)

    def encode(x: Tensor) -> Tensor:
        return model.encode(model.likelihood.observe(x, generator).to(model.device)).cpu()

    factors = drawn.draw_factors(FACTOR_SAMPLES, generator)
    z = torch.cat([encode(drawn.images(some)) for some in factors.split(256)])
    base = torch.cat([model.prior.to_base(some.to(model.device)).cpu() for some in z.split(256)])
    named = {}
    for name, values in zip(drawn.values, factors.T, strict=True):
        explained = F.correlation_ratio(base, values)
        if explained.max() > EXPLAINED:
            named[f"latent_{name}"] = int(explained.argmax())
    return named | {
        "mig": mig(z, factors),
        "sap": sap(z, factors),
        **dci(z, factors),
        "factor_vae_score": factor_vae_score(encode, drawn, generator),
    }


def batches(model: BaseAutoencoder, images: ImageSet, seed: int) -> Iterator[Tensor]:
    """The images in order, as the model's likelihood takes them; the last batch may be short.

    One seed gives every model of a likelihood the same pixels.
    """
    size = batch_size(model)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(images), size):
        x = images.batch(slice(start, start + size), model.device)
        yield model.likelihood.observe(x, generator)


def batch_size(model: BaseAutoencoder) -> int:
    """Images that are looked at together, by their size."""
    return max(1, min(256, LARGEST_BATCH // model.config.dims))


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over images and its standard error."""
    values = F.exact(values)
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return values.mean().item(), error


def table(results: dict[str, Any]) -> str:
    """The numbers, one a line."""
    return "\n".join(
        f"  {name:<22}{value:.4f}" if isinstance(value, float) else f"  {name:<22}{value}"
        for name, value in results.items()
    )


def main(argv: list[str] | None = None) -> None:
    parser = arguments("evaluate", __doc__, split="test")
    parser.add_argument(
        "--samples", type=int, help="for −log p(x) of a VAE; default 10, or 0 where z is a grid"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=expand, help="write the numbers to this JSON file too")
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        results = _evaluate(args)
        print(table(results))
        if args.output:
            write_folder(args.output.resolve().parent, {args.output.name: as_json(results)})
    except ImportError as error:
        print(f"evaluate: measuring {NEEDS_TRAIN} ({error})", file=sys.stderr)
        raise SystemExit(2) from None
    except (OSError, ValueError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    if (args.samples or 0) < 0 or args.seed < 0:
        raise ValueError("--samples and --seed must be 0 or more")
    if args.output:
        check_output(args.output)
    model, images = model_and_images(args)
    if seen := model.likelihood.seen:
        print(f"pixels are {seen}: drawn once with their value as chance, from --seed {args.seed}")
    if args.samples and not model.bottleneck.density:
        print("--samples plays no part: only a VAE's −log p(x) is sampled", file=sys.stderr)
    return evaluate(model, images, args.seed, args.samples)


def arguments(name: str, about: str | None, split: str) -> argparse.ArgumentParser:
    """What a command takes that puts a data set through a model."""
    parser = argparse.ArgumentParser(
        prog=f"python -m hfvae.{name}", description=(about or "").partition("\n")[0]
    )
    parser.add_argument("model", help="a folder or a Hub id")
    parser.add_argument("--dataset", required=True, help="as for train.py")
    parser.add_argument("--split", default=split, choices=["train", "test"])
    parser.add_argument("--image_column")
    parser.add_argument("--data_dir")
    return parser


def model_and_images(args: argparse.Namespace) -> tuple[BaseAutoencoder, ImageSet]:
    """What `arguments` name; images that cannot be read are named."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = from_pretrained(args.model, device=device)
    model.to(memory_format=torch.channels_last)  # faster, and the same but for rounding
    images = load_images(
        args.dataset,
        args.split,
        size=model.config.size,
        channels=model.config.channels,
        image_column=args.image_column,
        data_dir=args.data_dir,
    )
    for bad in images.skipped:
        print(f"skipped {bad}", file=sys.stderr)
    return model, images


if __name__ == "__main__":
    main()
