# /// script
# requires-python = ">=3.10"
# dependencies = []  # hfvae[train] is given with --with, as the README shows
# [tool.hf-jobs]
# flavor = "t4-small"
# timeout = "2h"
# secrets = ["HF_TOKEN"]
# ///
"""Train a variational autoencoder, measure it, and save it as a model that anyone can load.

    python train.py                                             # two minutes on built-in sprites
    python train.py --dataset path/to/photos --resolution 64    # any folder of images
    python train.py --dataset fashion-mnist --max_train_minutes 5
    python train.py --dataset owner/name --model beta-vae --beta 8
    python train.py --dataset photos --push_to_hub --hub_model_id me/photos --space_id me/demo
    python train.py --dataset others --model_name_or_path me/photos     # fine-tune
    accelerate launch train.py --dataset celeba                 # many GPUs

The folder that it writes, runs/<dataset>-<model> unless told otherwise, holds the model
(config.json, model.safetensors), its card (README.md), what was measured on held-out images
(evaluation.json) and pictures. Ctrl-C stops early and saves.
"""

import argparse
import copy
import dataclasses
import datetime
import math
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from hfvae import PRESETS, from_pretrained
from hfvae.budget import SMALLEST_BATCH, Budget, batch_size
from hfvae.card import CARD, render_card
from hfvae.checkpoint import State, existing, remove_checkpoints
from hfvae.configs import Config
from hfvae.data import load_images
from hfvae.errors import NEEDS_TRAIN, expand
from hfvae.evaluate import evaluate, table
from hfvae.hub import MEASURED, is_path, push_folder
from hfvae.machine import best_precision, keep_freed_memory, threads_left
from hfvae.models import FAMILIES, VAE, VQVAE, BaseAutoencoder
from hfvae.remote import check_write_access, make_repository
from hfvae.report import advice, as_json, reconstructions_png, samples_png
from hfvae.sources import DataError, check_name, dataset_name, licence
from hfvae.space import HARDWARE, publish
from hfvae.storage import WEIGHTS, model_files, write_folder
from hfvae.training import (
    PROGRESS,
    STAGES,
    Run,
    StopOnInterrupt,
    TrainingError,
    find_checkpoint,
    flags,
)

DEFAULT_STEPS = 600  # about two minutes of two cores on 64x64 sprites


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
    flag("--model", choices=PRESETS, help="which family; default: vae")
    flag("--model_name_or_path", help="fine-tune this model: a folder or a Hub id")
    flag("--dataset", default="sprites", help="name, folder, parquet file or Hub id")
    flag("--image_column", help="the column with the images, if the data set has several")
    flag("--data_dir", help="where torchvision's data are or go")
    flag("--streaming", action="store_true", help="never store a Hub data set, only its pixels")
    flag("--max_train_samples", type=int, help="take only the first images")
    flag("--resolution", type=resolution, help="N or HxW; the images' own if they agree, else 64")
    flag("--channels", type=int, help="1 grey, 3 colour; found by looking if not given")
    flag("--random_flip", action="store_true", help="mirror images at random")
    flag("--widths", type=widths, help="channels after each halving of the image: 32,64,128")
    flag("--latent_dim", type=int, help="how many numbers a latent has")
    flag("--beta", type=float, help="weight of the KL, in nats per image")
    flag("--beta_start", type=float, help="a larger beta to start from: latents part better")
    flag(
        "--prior",
        choices=["standard-normal", "mixture"],
        help="of a VAE; default: a mixture, fitted to its latents after training",
    )
    flag("--prior_components", type=int, help="how many Gaussians a mixture has; default: 10")
    flag("--codebook_size", type=int, help="how many codes, for vq-vae and fsq-vae")
    flag(
        "--prior_fraction",
        type=float,
        default=0.5,
        help="share of the training that a vq-vae's transformer prior gets; default: 0.5",
    )
    flag("--likelihood", help="discretized-logistic, gaussian or bernoulli")
    flag("--license", help="the images' licence, for the card, as the Hub writes it: cc-by-4.0")
    flag("--output_dir", type=expand, help="default: runs/<dataset>-<model>")
    flag("--overwrite_output_dir", action="store_true", help="replace a model that is there")
    flag("--seed", type=int, default=0)
    flag(
        "--train_batch_size",
        type=int,
        help="images a step, over all processes; default: 16 to 128, by their number and the time",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--num_train_epochs", type=float)
    budget.add_argument("--max_train_steps", type=int, help=f"default: {DEFAULT_STEPS}")
    budget.add_argument("--max_train_minutes", type=float)
    flag("--learning_rate", type=float, default=2e-3)
    flag("--lr_warmup_steps", type=int, help="default: 100, at most a tenth of the training")
    flag("--kl_warmup_steps", type=int, default=0, help="steps over which beta grows from 0")
    flag("--gradient_accumulation_steps", type=int, default=1)
    flag("--use_ema", action="store_true", help="save a moving average of the weights")
    flag("--save_fp16", action="store_true", help="store the weights in half the bytes")
    flag("--mixed_precision", choices=["no", "bf16", "fp16"], help="default: bf16 where it is fast")
    flag("--compile", action="store_true", help="torch.compile: worth it on a GPU")
    flag("--resume_from_checkpoint", help="latest, or a checkpoint's folder: go on from there")
    flag("--checkpointing_steps", type=int, default=500, help="steps between checkpoints; 0: none")
    flag("--checkpoints_total_limit", type=int, default=2, help="how many are kept")
    flag("--report_to", default="none", choices=["none", "trackio", "tensorboard", "wandb"])
    flag("--push_to_hub", action="store_true", help="publish the model when it is trained")
    flag("--hub_model_id", help="owner/name; default: the name of the output folder")
    flag("--hub_private_repo", action="store_true", help="make what is published private")
    flag("--space_id", help="publish a demo of the model as this Space")
    # Both spellings of every flag: --max-train-steps is --max_train_steps.
    parts = (word.partition("=") for word in argv)
    args = parser.parse_args(
        [
            ("--" + name[2:].replace("-", "_") if name.startswith("--") else name) + equals + value
            for name, equals, value in parts
        ]
    )
    for name in ("seed", "lr_warmup_steps", "kl_warmup_steps", "checkpointing_steps"):
        if (getattr(args, name) or 0) < 0:
            raise UsageError(f"--{name} must be 0 or more, not {getattr(args, name)}")
    if args.seed >= 2**32:
        raise UsageError(f"--seed must be below {2**32}, not {args.seed}")
    if args.resume_from_checkpoint == "":
        raise UsageError("--resume_from_checkpoint takes latest, or a checkpoint's folder")
    if args.train_batch_size == 1:
        raise UsageError("--train_batch_size must be 2 or more: BatchNorm compares images")
    for name in (
        "train_batch_size",
        "num_train_epochs",
        "max_train_steps",
        "max_train_minutes",
        "learning_rate",
        "beta_start",
        "gradient_accumulation_steps",
        "max_train_samples",
        "checkpoints_total_limit",
    ):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} must be more than 0, not {value}")
    if (args.hub_model_id or args.hub_private_repo) and not (args.push_to_hub or args.space_id):
        raise UsageError("--hub_model_id and --hub_private_repo need --push_to_hub")
    if args.license and not re.fullmatch(r"[a-z0-9.-]+", args.license):
        raise UsageError(f"--license takes a name such as cc-by-4.0, not {args.license!r:.80}")
    if not 0 <= args.prior_fraction < 1:
        raise UsageError(f"--prior_fraction must be from 0 to below 1, not {args.prior_fraction}")
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


def make_budgets(
    args: argparse.Namespace, model: BaseAutoencoder, images: int
) -> tuple[tuple[Budget, Budget], dict[str, int]]:
    """For the model and, where it has one to train, for its prior: a share of minutes or steps.

    And images a step by stage, where no time has to be measured to know them.
    """
    share = args.prior_fraction if isinstance(model, VQVAE) else 0.0
    given = args.train_batch_size
    if args.max_train_minutes:
        seconds = 60 * args.max_train_minutes
        sizes = dict.fromkeys(STAGES, given) if given else {}
        return (Budget(None, (1 - share) * seconds), Budget(None, share * seconds)), sizes
    steps = args.max_train_steps or DEFAULT_STEPS
    seen = (args.num_train_epochs or math.inf) * images
    size = given or batch_size(images, seen)
    if args.num_train_epochs:
        steps = math.ceil(seen / (size * args.gradient_accumulation_steps))
    # A step of the prior takes longer, and many small ones are worth more than few large ones.
    sizes = {"model": size, "prior": given or max(SMALLEST_BATCH, size // 4)}
    return (Budget(steps, None), Budget(math.ceil(steps * share / (1 - share)), None)), sizes


def make_config(
    args: argparse.Namespace, base: BaseAutoencoder | None, size: tuple[int, int], channels: int
) -> Config:
    """The preset, or the config of the model to fine-tune, with what the flags change."""
    names = ("widths", "latent_dim", "beta", "prior_components", "codebook_size", "likelihood")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given |= {"image_size": size[0] if size[0] == size[1] else size, "channels": channels}
    family = FAMILIES[PRESETS[args.model]().model_type] if base is None else type(base)
    for name in given.keys() - {f.name for f in dataclasses.fields(family.config_class)}:
        raise UsageError(f"--{name} means nothing to --model {args.model}")
    if family is not VAE:
        for name in ("prior", "kl_warmup_steps", "beta_start"):
            if getattr(args, name):
                raise UsageError(f"--{name} means nothing to --model {args.model}")
    if args.prior_components and family is VAE and args.prior == "standard-normal":
        raise UsageError("--prior_components needs --prior mixture")
    if args.beta_start and args.beta == 0:
        raise UsageError("--beta_start falls by factors to --beta, which must be more than 0")
    try:
        if base is None:
            return PRESETS[args.model](**given)
        # A prior is fitted to the latents of the data: it starts anew, as its family starts.
        return dataclasses.replace(base.config, prior=family.config_class().prior, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def base_model(args: argparse.Namespace) -> BaseAutoencoder | None:
    """The model to fine-tune, if one was named; its family becomes --model."""
    if not args.model_name_or_path:
        args.model = args.model or "vae"
        return None
    base = from_pretrained(args.model_name_or_path)
    kind = base.config.model_type
    if args.model and PRESETS[args.model]().model_type != kind:
        raise UsageError(f"{args.model_name_or_path} is a {kind}, not a {args.model}")
    own = getattr(PRESETS[args.model], "keywords", {}) if args.model else {}
    for name, value in own.items():
        if getattr(base.config, name) != value and getattr(args, name, None) is None:
            raise UsageError(
                f"{args.model_name_or_path} is no {args.model}: its {name} is "
                f"{getattr(base.config, name)}, not {value}; leave --model away to keep what it is"
            )
    args.model = args.model or kind
    return base


def carry_over(base: BaseAutoencoder, model: BaseAutoencoder) -> list[str]:
    """Copy the weights that fit by name and shape; return the names of those that start afresh."""
    old, new = base.state_dict(), model.state_dict()
    fitting = {name: t for name, t in old.items() if name in new and new[name].shape == t.shape}
    model.load_state_dict(fitting, strict=False)
    return [name for name in new if name not in fitting]


def refuse_to_replace(folder: Path) -> None:
    """A finished model and an unfinished run are replaced only when asked to."""
    replace = "replace it with --overwrite_output_dir"
    if (folder / WEIGHTS).exists():
        raise UsageError(
            f"{folder} holds a finished model: choose another --output_dir, or {replace}; to train "
            f"it further, --model_name_or_path {folder} and another --output_dir"
        )
    if existing(folder):
        raise UsageError(
            f"{folder} holds checkpoints of a run that is not finished: go on with "
            f"--resume_from_checkpoint latest, or {replace}"
        )


def check_writable(folder: Path) -> None:
    """Raise UsageError now rather than after the images were read."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"--output_dir {folder} cannot be written to: {error.strerror}") from error


def settle_threads(accelerator: Any, resumed: State | None) -> None:
    """Those of the run that is resumed, whose sums run in that order; else what is free here."""
    most = torch.get_num_threads()
    threads = resumed.numbers["threads"] if resumed else threads_left()
    torch.set_num_threads(threads)
    if threads < most:
        accelerator.print(
            f"computing with {threads} of {most} threads, because other processes use the rest: "
            f"set OMP_NUM_THREADS={most} to use all the same"
        )


def run(args: argparse.Namespace) -> None:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import set_seed
    except ImportError as error:
        raise UsageError(f"training {NEEDS_TRAIN}") from error

    # All that can be refused is refused before the images are read.
    started = time.perf_counter()
    args.given = flags(args)
    base = base_model(args)
    if base is not None:  # its size and channels, unless told otherwise
        args.resolution = args.resolution or base.config.size
        args.channels = args.channels or base.config.channels
    make_config(args, base, args.resolution or (64, 64), args.channels or 3)
    if args.report_to not in ("none", *map(str, get_available_trackers())):
        raise UsageError(f"--report_to {args.report_to} needs: pip install {args.report_to}")
    check_name(args.dataset)
    args.output_dir = args.output_dir or Path("runs", f"{dataset_name(args.dataset)}-{args.model}")
    resumed = find_checkpoint(args) if args.resume_from_checkpoint else None
    if not (args.overwrite_output_dir or resumed):
        refuse_to_replace(args.output_dir)
    check_writable(args.output_dir)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or best_precision(),
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        kwargs_handlers=[
            # The codebook is the same everywhere, and BatchNorm's statistics are averaged later.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            # The first process decodes a large folder while the others wait.
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),
        ],
    )
    if (args.train_batch_size or 0) % accelerator.num_processes:
        raise UsageError(
            f"--train_batch_size must be a multiple of the {accelerator.num_processes} processes"
        )
    if args.compile and accelerator.num_processes > 1:
        raise UsageError("--compile works with one process: leave it away, or use one")
    say = accelerator.print
    set_seed(args.seed)
    if accelerator.is_main_process:
        prepare_publishing(args)
    where = {
        "image_column": args.image_column,
        "data_dir": args.data_dir,
        "streaming": args.streaming,
        "max_samples": args.max_train_samples,
    }
    with accelerator.main_process_first():  # the others find what it decoded
        images = load_images(
            args.dataset, "train", size=args.resolution, channels=args.channels, **where
        )
        _, channels, height, width = images.pixels.shape
        size = (height, width)
        held_out = load_images(args.dataset, "test", size=size, channels=channels, **where)
    if images.note:
        say(images.note)
    for bad in images.skipped + held_out.skipped:
        say(f"skipped {bad}")
    if skipped := len(images.skipped) + len(held_out.skipped):
        say(f"skipped {skipped} image{'s' * (skipped > 1)} that cannot be read")
    if len(images) < 2:
        raise UsageError(f"one image of {args.dataset} is not enough to train on")
    say(
        f"{args.dataset}: {len(images)} images of {height}x{width}, {channels} channels; "
        f"{len(held_out)} held out"
    )
    config = make_config(args, base, (height, width), channels)
    model = FAMILIES[config.model_type](config)
    if base is not None and (afresh := carry_over(base, model)):
        say(
            f"{len(afresh)} of {len(model.state_dict())} tensors start afresh, because the shapes "
            f"in {args.model_name_or_path} are others: {', '.join(afresh)}"
        )
    if config.likelihood == "bernoulli":
        say("pixels are binarized: drawn with their value as chance, afresh at every use")
    accelerator.init_trackers("hfvae", config={k: str(v) for k, v in args.given.items()})
    settle_threads(accelerator, None if args.max_train_minutes else resumed)

    if args.resume_from_checkpoint and resumed is None:
        say(f"no checkpoint in {args.output_dir}: starting afresh")
    budgets, batch_sizes = make_budgets(args, model, len(images))
    budget, prior_budget = budgets
    training = Run(args, model, images, budgets, batch_sizes, accelerator, resumed)
    if resumed is not None:
        say(f"resuming from step {budget.step + prior_budget.step}")
    elif accelerator.is_main_process:  # of another run, which this one replaces
        remove_checkpoints(args.output_dir)
    with StopOnInterrupt() as stop:
        training.fit_model(stop)
        model = training.model
        if accelerator.is_main_process and not prior_budget.step:
            for stale in (*MEASURED, CARD, PROGRESS):
                (args.output_dir / stale).unlink(missing_ok=True)
            write_folder(args.output_dir, model_files(model))  # before anything can go wrong
        training.fit_prior(stop)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    kept = model
    if args.save_fp16:
        half = copy.deepcopy(model).half()
        if all(t.isfinite().all() for t in half.state_dict().values()):
            kept = half
            model.load_state_dict(half.state_dict())  # measured as rounded as it is stored
        else:
            say("some weights are too large for --save_fp16: stored in full precision")
    write_folder(args.output_dir, model_files(kept))
    say("measuring on the held-out images ...")
    results = evaluate(model, held_out, args.seed)
    command = f"python train.py {shlex.join(map(without_folder, from_scratch(sys.argv[1:])))}"
    threads = torch.get_num_threads()
    processor = (
        torch.cuda.get_device_name()
        if accelerator.device.type == "cuda"
        else f"{threads} CPU core{'s' * (threads > 1)}"
    )
    summary = (
        f"{budget.step} steps of {training.batch_sizes['model']} images in "
        f"{budget.spent / 60:.1f} minutes on {processor}."
    )
    if prior_budget.step:
        minutes = prior_budget.spent / 60
        size = training.batch_sizes["prior"]
        summary += f" Then its prior: {prior_budget.step} steps of {size} in {minutes:.1f} minutes."
    card = render_card(
        model.config,
        name=args.output_dir.resolve().name,
        repo=args.hub_model_id if args.push_to_hub else str(args.output_dir),
        results=results,
        dataset=images.name if expand(args.dataset).exists() else args.dataset,
        licence=args.license or licence(args.dataset),
        base_model=None
        if base is None or is_path(args.model_name_or_path)
        else args.model_name_or_path,
        pictures=True,
        training={"summary": summary, "command": command.strip()},
    )
    settings = {k: without_folder(v) for k, v in vars(args).items() if k != "given"}
    write_folder(
        args.output_dir,
        model_files(kept)
        | {
            CARD: card.encode(),
            "train_config.json": as_json(settings),
            "evaluation.json": as_json(results),
            "samples.png": samples_png(model),
            "reconstructions.png": reconstructions_png(model, held_out),
        },
    )
    if not stop.asked:  # after Ctrl-C, the last checkpoint can be gone on from
        remove_checkpoints(args.output_dir)
    say(table(results))
    for words in advice(results, model).values():
        say(f"note: {words}")
    say(f"saved to {args.output_dir} after {time.perf_counter() - started:.0f} s; now try:")
    folder = shlex.quote(str(args.output_dir))
    say(f"  python app.py --model {folder}    # the demo")
    say(f"  python train.py --model_name_or_path {folder} --dataset others    # fine-tune it")
    if not args.push_to_hub:
        say(f"  python -m hfvae.hub {folder} you/name    # publish it")
    publish_all(args)


# Publishing


def prepare_publishing(args: argparse.Namespace) -> None:
    """Make the repositories, so that a missing token or right is known before the training."""
    private = args.hub_private_repo or None
    if args.push_to_hub:
        name = args.hub_model_id or args.output_dir.resolve().name
        args.hub_model_id = make_repository(name, private=private)
        check_write_access(args.hub_model_id)
    if args.space_id:
        args.space_id = make_repository(
            args.space_id, kind="space", private=private, hardware=HARDWARE
        )
        check_write_access(args.space_id, kind="space")


def publish_all(args: argparse.Namespace) -> None:
    """Push the output folder and the demo; if that fails, say how to go on from the folder."""
    folder = str(args.output_dir)
    if args.push_to_hub:
        try:
            print(f"published: {push_folder(args.output_dir, args.hub_model_id)}")
        except OSError as error:
            again = shlex.join(["python", "-m", "hfvae.hub", folder, args.hub_model_id])
            raise UsageError(f"saved in {folder}, but not published: {error}; {again}") from error
    if args.space_id:
        model = args.hub_model_id if args.push_to_hub else folder
        try:
            print(f"published: {publish(args.space_id, [model])}")
        except OSError as error:
            again = shlex.join(
                ["python", "app.py", "--push_to_space", args.space_id, "--model", model]
            )
            raise UsageError(f"the demo was not published: {error}; {again}") from error


def from_scratch(argv: list[str]) -> list[str]:
    """The flags without --resume_from_checkpoint: what makes the same model where there is none."""
    kept, words = [], iter(argv)
    for word in words:
        name, equals, _ = word.replace("-", "_").partition("=")
        if name == "__resume_from_checkpoint":
            if not equals:
                next(words, None)
        else:
            kept.append(word)
    return kept


def without_folder(value: Any) -> Any:
    """What is published says nothing of where things lie on this machine."""
    if not isinstance(value, (str, Path)):
        return value
    text = str(value)
    flag, equals, word = text.partition("=") if text.startswith("--") else ("", "", text)
    path = expand(word)
    return flag + equals + (path.name if path.is_absolute() or ".." in path.parts else word)


def main() -> None:
    keep_freed_memory()
    try:
        run(parse(sys.argv[1:]))
    except (UsageError, TrainingError, DataError, OSError) as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("train.py: stopped for good; what was saved before stays", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
