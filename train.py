"""Train a variational autoencoder, measure it, and save it as a model that anyone can load.

    python train.py                                             # two minutes on built-in sprites
    python train.py --dataset path/to/photos --resolution 64    # any folder of images
    python train.py --dataset fashion-mnist --max_train_minutes 5
    python train.py --dataset owner/name --model beta-vae --beta 8
    accelerate launch train.py --dataset celeba                 # many GPUs

The folder that it writes, runs/<dataset>-<model> unless told otherwise, holds the model
(config.json, model.safetensors), its card (README.md), what was measured on held-out images
(evaluation.json) and pictures. Ctrl-C stops early and saves.
"""

import argparse
import ctypes
import io
import json
import math
import platform
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from hfvae import PRESETS, HubError, grid
from hfvae.card import render_card
from hfvae.data import DataError, ImageSet, load_images
from hfvae.evaluate import evaluate
from hfvae.models import FAMILIES, VAE, BaseAutoencoder
from hfvae.storage import WEIGHTS, model_files, write_folder

DEFAULT_STEPS = 1000  # about two minutes of two cores on 64x64 sprites
PICTURES = 64  # new images in samples.png; a quarter as many in reconstructions.png


class UsageError(Exception):
    """Something that the user can put right; shown in one line."""


# What to train, on what, for how long


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(argv: list[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--model", default="vae", choices=PRESETS, help="which family")
    flag("--dataset", default="sprites", help="name, folder, parquet file or Hub id")
    flag("--image_column", help="the column with the images, if the data set has several")
    flag("--data_dir", help="where torchvision's data are or go")
    flag("--resolution", type=resolution, help="N or HxW; the images' own if they agree, else 64")
    flag("--channels", type=int, help="1 grey, 3 colour; found by looking if not given")
    flag("--random_flip", action="store_true", help="mirror images at random")
    flag("--widths", type=widths, help="channels after each halving of the image: 32,64,128")
    flag("--latent_dim", type=int, help="how many numbers a latent has")
    flag("--beta", type=float, help="weight of the KL, in nats per image")
    flag("--likelihood", help="discretized-logistic, gaussian or bernoulli")
    flag("--output_dir", type=Path, help="default: runs/<dataset>-<model>")
    flag("--overwrite_output_dir", action="store_true", help="replace a model that is there")
    flag("--seed", type=int, default=0)
    flag("--train_batch_size", type=int, default=64, help="images a step, over all processes")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--num_train_epochs", type=float)
    budget.add_argument("--max_train_steps", type=int, help=f"default: {DEFAULT_STEPS}")
    budget.add_argument("--max_train_minutes", type=float)
    flag("--learning_rate", type=float, default=2e-3)
    flag("--lr_warmup_steps", type=int, default=100)
    flag("--kl_warmup_steps", type=int, default=0, help="steps over which beta grows from 0")
    flag("--gradient_accumulation_steps", type=int, default=1)
    flag("--use_ema", action="store_true", help="save a moving average of the weights")
    flag("--mixed_precision", choices=["no", "bf16", "fp16"], help="default: bf16 where it is fast")
    flag("--compile", action="store_true", help="torch.compile: worth it on a GPU")
    flag("--report_to", default="none", choices=["none", "trackio", "tensorboard", "wandb"])
    # Both spellings of every flag: --max-train-steps is --max_train_steps.
    parts = (word.partition("=") for word in argv)
    args = parser.parse_args(
        [
            ("--" + name[2:].replace("-", "_") if name.startswith("--") else name) + equals + value
            for name, equals, value in parts
        ]
    )
    for name in (
        "train_batch_size",
        "num_train_epochs",
        "max_train_steps",
        "max_train_minutes",
        "learning_rate",
        "gradient_accumulation_steps",
    ):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} must be more than 0, not {value}")
    return args


def resolution(text: str) -> tuple[int, int]:
    """N or HxW."""
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither N nor HxW") from None


def widths(text: str) -> tuple[int, ...]:
    """32,64,128."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list like 32,64,128") from None


@dataclass
class Budget:
    """How far along training is, from 0 to 1, by whichever of steps and minutes was given."""

    steps: int | None
    seconds: float | None
    step: int = 0
    spent: float = 0.0

    @property
    def progress(self) -> float:
        if self.seconds is not None:
            return min(1.0, self.spent / self.seconds)
        assert self.steps is not None
        return min(1.0, self.step / self.steps)


def make_budget(args: argparse.Namespace, images: int) -> Budget:
    if args.max_train_minutes:
        return Budget(None, 60 * args.max_train_minutes)
    if args.num_train_epochs:
        return Budget(max(1, round(args.num_train_epochs * images / args.train_batch_size)), None)
    return Budget(args.max_train_steps or DEFAULT_STEPS, None)


def make_model(args: argparse.Namespace, images: ImageSet) -> BaseAutoencoder:
    _, channels, height, width = images.pixels.shape
    settings: dict[str, Any] = {
        "image_size": height if height == width else (height, width),
        "channels": channels,
    }
    given = {name: getattr(args, name) for name in ("widths", "latent_dim", "beta", "likelihood")}
    settings |= {name: value for name, value in given.items() if value is not None}
    try:
        config = PRESETS[args.model](**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return FAMILIES[config.model_type](config)


# How to train


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: it would hand big activations back to the kernel every step.

    A third of a training step on a CPU is page faults otherwise. Linux with glibc only.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in [(-4, 0), (-1, 2**31 - 1), (-2, 256 << 20)]:
            mallopt(parameter, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def best_precision() -> str:
    """bf16 where the hardware computes in it: recent GPUs, and CPUs with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "no"


def index_batches(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Every image once an epoch, in an order that the seed fixes, without end."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:size]
        left = left[size:]


def learning_rate(args: argparse.Namespace, budget: Budget) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    warm = min(1.0, (budget.step + 1) / max(1, args.lr_warmup_steps))
    return args.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * budget.progress)))


class Progress:
    """The bar and the trackers. Once a second, not every step: reading a number waits for a GPU."""

    def __init__(self, args: argparse.Namespace, accelerator: Any) -> None:
        from tqdm import tqdm

        self.images_per_step = args.train_batch_size
        self.accelerator = accelerator
        self.bar = tqdm(
            total=100,
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
            disable=not accelerator.is_main_process,
        )
        self.step, self.seconds = 0, 0.0

    def show(self, budget: Budget, metrics: dict[str, Tensor], last: bool) -> None:
        seconds = budget.spent - self.seconds
        if seconds < 1 and not last:
            return
        numbers = {name: value.item() for name, value in metrics.items()}
        if not math.isfinite(sum(numbers.values())):
            raise UsageError(
                f"the loss is no longer a number after {budget.step} steps, so nothing was saved: "
                "try a lower --learning_rate, or --mixed_precision no"
            )
        rate = (budget.step - self.step) * self.images_per_step / seconds
        self.step, self.seconds = budget.step, budget.spent
        self.bar.update(100 * budget.progress - self.bar.n)
        nats = ", ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        self.bar.set_postfix_str(f"step {budget.step}, {nats} nats, {rate:.0f} images/s")
        self.accelerator.log(numbers | {"images/s": rate}, step=budget.step)


class StopOnInterrupt:
    """Ctrl-C asks the loop to stop after its step; a second one means it."""

    asked = False

    def __enter__(self) -> "StopOnInterrupt":
        self.previous = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.previous)


def fit(
    args: argparse.Namespace, model: BaseAutoencoder, images: ImageSet, accelerator: Any
) -> tuple[BaseAutoencoder, Budget]:
    """Train until the budget is spent or Ctrl-C; the model to keep, and what was spent."""
    budget = make_budget(args, len(images))
    device = accelerator.device
    model.to(device).to(memory_format=torch.channels_last)
    average = None
    if args.use_ema:
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=ema, use_buffers=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), fused=True
    )
    step_model, optimizer = accelerator.prepare(
        torch.compile(model) if args.compile else model, optimizer
    )
    step_model.train()
    generator = torch.Generator(device).manual_seed(args.seed + accelerator.process_index)
    progress = Progress(args, accelerator)
    start, next_pictures = time.perf_counter(), 0.1

    with StopOnInterrupt() as stop:
        for index in index_batches(len(images), args.train_batch_size, args.seed):
            mine = index[accelerator.process_index :: accelerator.num_processes]
            x = images.batch(mine, device)
            if args.random_flip:
                mirrored = torch.rand(len(x), 1, 1, 1, device=device, generator=generator) < 0.5
                x = torch.where(mirrored, x.flip(3), x)
            x = model.likelihood.observe(x, generator).to(memory_format=torch.channels_last)
            if isinstance(model, VAE) and args.kl_warmup_steps:
                warm = min(1.0, (budget.step + 1) / args.kl_warmup_steps)
                model.bottleneck.beta = model.config.beta * warm
            with accelerator.accumulate(step_model):
                out = step_model(x, generator)
                accelerator.backward(out.loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(args, budget)
                optimizer.step()
                optimizer.zero_grad()
            if average is not None:
                average.update_parameters(model)

            budget.step += 1
            budget.spent = time.perf_counter() - start
            done = stop.asked or budget.progress >= 1
            progress.show(budget, out.metrics, last=done)
            if done:
                break
            if budget.progress >= next_pictures and accelerator.is_main_process:
                next_pictures += 0.1
                write_folder(args.output_dir, {"samples.png": samples_png(model)})
    progress.bar.close()
    accelerator.unwrap_model(step_model, keep_fp32_wrapper=False)  # forward without autocast again
    kept: Any = model if average is None else average.module
    if isinstance(kept, VAE):
        kept.bottleneck.beta = kept.config.beta
    # The layout in which from_pretrained builds it: another one rounds differently.
    return kept.to(memory_format=torch.contiguous_format).eval(), budget


# What to leave behind


def png(picture: Any) -> bytes:
    """PNG bytes, small pictures enlarged without smoothing."""
    factor = max(1, 500 // picture.width)
    buffer = io.BytesIO()
    picture.resize((picture.width * factor, picture.height * factor), 0).save(buffer, "PNG")
    return buffer.getvalue()


def samples_png(model: BaseAutoencoder) -> bytes:
    """New images, always from the same seed, so that one sees what training changes."""
    return png(grid(model.sample(PICTURES, generator=torch.Generator().manual_seed(0))))


def reconstructions_png(model: BaseAutoencoder, held_out: ImageSet) -> bytes:
    """Rows of held-out images, each above a row of what the model makes of them."""
    x = held_out.batch(slice(PICTURES // 4), model.device)
    x = model.likelihood.observe(x, torch.Generator().manual_seed(0))
    pairs = [
        torch.cat(rows) for rows in zip(x.split(8), model.reconstruct(x).split(8), strict=True)
    ]
    return png(grid(torch.cat(pairs), columns=min(8, len(x))))


def advice(results: dict[str, Any], model: BaseAutoencoder) -> str | None:
    """Words for a model whose latents have collapsed."""
    if not isinstance(model, VAE):
        return None
    active, latents = results["active_units"], model.config.latent_dim
    if active >= latents / 4:
        return None
    return (
        f"only {active} of {latents} latents carry information: lower --beta, add "
        "--kl_warmup_steps, or train longer; if the pictures are good, use fewer --latent_dim"
    )


def run(args: argparse.Namespace) -> None:
    try:
        from accelerate import Accelerator
        from accelerate.utils import set_seed
    except ImportError as error:
        raise UsageError('training needs: pip install -e ".[train]"') from error

    started = time.perf_counter()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or best_precision(),
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
    )
    say = accelerator.print
    set_seed(args.seed)
    where = {"image_column": args.image_column, "data_dir": args.data_dir}
    images = load_images(
        args.dataset, "train", size=args.resolution, channels=args.channels, **where
    )
    _, channels, height, width = images.pixels.shape
    held_out = load_images(args.dataset, "test", size=(height, width), channels=channels, **where)
    for bad in images.skipped + held_out.skipped:
        say(f"skipped {bad}")
    if skipped := len(images.skipped) + len(held_out.skipped):
        say(f"skipped {skipped} images that cannot be read")
    say(
        f"{args.dataset}: {len(images)} images of {height}x{width}, {channels} channels; "
        f"{len(held_out)} held out"
    )

    args.output_dir = args.output_dir or Path("runs", f"{images.name}-{args.model}")
    if (args.output_dir / WEIGHTS).exists() and not args.overwrite_output_dir:
        raise UsageError(
            f"{args.output_dir} holds a finished model: choose another --output_dir, or replace it "
            "with --overwrite_output_dir"
        )
    model = make_model(args, images)
    if args.likelihood == "bernoulli":
        say("pixels are binarized: drawn with their value as chance, afresh at every use")
    accelerator.init_trackers("hfvae", config={k: str(v) for k, v in vars(args).items()})
    write_folder(args.output_dir, {"train_config.json": as_json(vars(args))})  # now, if it fails

    model, budget = fit(args, model, images, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    write_folder(args.output_dir, model_files(model))  # before anything else can go wrong
    say("measuring on the held-out images ...")
    results = evaluate(model, held_out, seed=args.seed)
    command = f"python train.py {shlex.join(sys.argv[1:])}".strip()
    processor = (
        torch.cuda.get_device_name()
        if accelerator.device.type == "cuda"
        else (f"{torch.get_num_threads()} CPU cores")
    )
    card = render_card(
        model.config,
        name=args.output_dir.resolve().name,
        repo=str(args.output_dir),
        results=results,
        dataset=images.name,
        pictures=True,
        training={
            "summary": f"{budget.step} steps of {args.train_batch_size} images in "
            f"{budget.spent / 60:.1f} minutes on {processor}.",
            "command": command,
        },
    )
    write_folder(
        args.output_dir,
        model_files(model)
        | {
            "README.md": card.encode(),
            "evaluation.json": as_json(results),
            "samples.png": samples_png(model),
            "reconstructions.png": reconstructions_png(model, held_out),
        },
    )
    for name, value in results.items():
        say(f"  {name:<16} {value:.4f}" if isinstance(value, float) else f"  {name:<16} {value}")
    if words := advice(results, model):
        say(f"note: {words}")
    say(
        f"saved to {args.output_dir} after {time.perf_counter() - started:.0f} s; now try:\n"
        f"  python app.py --model {shlex.quote(str(args.output_dir))}"
    )


def as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, default=str) + "\n").encode()


def main() -> None:
    keep_freed_memory()
    try:
        run(parse(sys.argv[1:]))
    except (UsageError, DataError, HubError, OSError) as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
