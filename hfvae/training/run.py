"""The way through: read, build, train, measure, leave behind, publish."""

import copy
import datetime
import shlex
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..base import BaseAutoencoder
from ..data import ImageSet, find_source, load_images
from ..errors import NEEDS_TRAIN, expand
from ..evaluate import evaluate, table
from ..hub import CARD, MEASURED, as_json, is_path, model_files
from ..hub.card import render_card
from ..machine import best_precision, keep_freed_memory, threads_left
from ..priors import prior_class
from ..report import PROGRESS, advice, reconstructions_png, samples_png
from . import checkpoint
from .budget import make_budgets
from .build import build, learned_prior, model_config, with_base
from .checkpoint import State
from .config import TrainConfig
from .errors import TrainingError
from .folder import alone_in, check_writable, refuse_to_replace
from .loop import Run, find_checkpoint
from .model import ModelStage
from .prior import PriorStage
from .progress import StopOnInterrupt
from .publish import prepare, publish_all

USED_LATER = ("sklearn", "torchmetrics")  # once the model is trained: too late to miss them


def train(config: TrainConfig) -> BaseAutoencoder:
    """Train a model, measure it, and leave it in a folder with its card, numbers and pictures.

    Args:
        config: what, on what, for how long, and where to.

    Returns:
        The trained model, in eval mode.

    Raises:
        TrainingError, DataError, OSError: training cannot start or go on; nothing is lost.
    """
    started = time.perf_counter()
    # All that can be refused is refused before the images are read.
    config, base = with_base(config)
    model_config(config, base, config.resolution or (64, 64), config.channels or 3)
    find_source(config.dataset)
    check_writable(config.folder)
    accelerator = make_accelerator(config)
    with alone_in(config.folder) if accelerator.is_main_process else nullcontext():
        return train_there(config, base, accelerator, started)


def train_there(
    config: TrainConfig, base: BaseAutoencoder | None, accelerator: Any, started: float
) -> BaseAutoencoder:
    """`train`, once no other run can use the output folder."""
    resumed = find_checkpoint(config)
    if not (config.overwrite_output_dir or resumed):
        refuse_to_replace(config.folder)
    if accelerator.is_main_process:
        checkpoint.remove_unfinished(config.folder)
        config = prepare(config)

    images, held_out = read(config, accelerator)
    keep_freed_memory()  # from here on: every thread that decodes would keep its own
    _, channels, height, width = images.pixels.shape
    model, afresh = build(config, base, (height, width), channels)
    if afresh:
        accelerator.print(
            f"{len(afresh)} of {len(model.state_dict())} tensors start afresh, because the shapes "
            f"in {config.model_name_or_path} are others: {', '.join(afresh)}"
        )
    accelerator.init_trackers("hfvae", config={k: str(v) for k, v in config.deciding().items()})
    with settled_threads(accelerator, None if config.max_train_minutes else resumed):
        run, stop = fit(config, model, images, accelerator, resumed)
        model = run.model
        if accelerator.is_main_process:
            leave_behind(config, run, held_out, base)
            if not stop.asked:  # after Ctrl-C, the last checkpoint can be gone on from
                checkpoint.remove_checkpoints(run.folder)
            say_what_next(config, run.folder, time.perf_counter() - started)
            publish_all(config, run.folder)
    return model


def make_accelerator(config: TrainConfig) -> Any:
    """Devices and processes, or a refusal of what they cannot do."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import set_seed
    except ImportError as error:
        raise TrainingError(f"training {NEEDS_TRAIN}") from error
    if not all(map(find_spec, USED_LATER)):
        raise TrainingError(f"training {NEEDS_TRAIN}")

    if config.report_to not in ("none", *map(str, get_available_trackers())):
        raise TrainingError(f"--report_to {config.report_to} needs: pip install {config.report_to}")
    AcceleratorState._reset_state(True)  # a notebook may have trained with other settings before
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision or best_precision(),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.folder,
        kwargs_handlers=[
            # The codebook is the same everywhere, and BatchNorm's statistics are averaged later.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            # The first process decodes a large folder while the others wait.
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),
        ],
    )
    if (config.train_batch_size or 0) % accelerator.num_processes:
        raise TrainingError(
            f"--train_batch_size must be a multiple of the {accelerator.num_processes} processes"
        )
    if config.compile and accelerator.num_processes > 1:
        raise TrainingError("--compile works with one process: leave it away, or use one")
    set_seed(config.seed)
    return accelerator


@contextmanager
def settled_threads(accelerator: Any, resumed: State | None) -> Generator[None]:
    """As many threads as the run that is resumed had, whose sums ran in that order; else as many as
    other processes leave free."""
    most = torch.get_num_threads()
    threads = resumed.numbers["threads"] if resumed else threads_left()
    if threads < most:
        accelerator.print(
            f"computing with {threads} of {most} threads, because other processes use the rest: "
            f"set OMP_NUM_THREADS={most} to use all the same"
        )
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(most)


def read(config: TrainConfig, accelerator: Any) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those that are held out."""
    say = accelerator.print
    where = {
        "image_column": config.image_column,
        "data_dir": config.data_dir,
        "streaming": config.streaming,
        "max_samples": config.max_train_samples,
    }
    with accelerator.main_process_first():  # the others find what it decoded
        images = load_images(
            config.dataset, "train", size=config.resolution, channels=config.channels, **where
        )
        _, channels, height, width = images.pixels.shape
        held_out = load_images(
            config.dataset, "test", size=(height, width), channels=channels, **where
        )
    if images.note:
        say(images.note)
    for bad in images.skipped + held_out.skipped:
        say(f"skipped {bad}")
    if skipped := len(images.skipped) + len(held_out.skipped):
        say(f"skipped {skipped} image{'s' * (skipped > 1)} that cannot be read")
    if len(images) < 2:
        raise TrainingError(f"one image of {config.dataset} is not enough to train on")
    say(
        f"{config.dataset}: {len(images)} images of {height}x{width}, {channels} "
        f"channel{'s' * (channels > 1)}; {len(held_out)} held out"
    )
    return images, held_out


def fit(
    config: TrainConfig,
    model: BaseAutoencoder,
    images: ImageSet,
    accelerator: Any,
    resumed: State | None,
) -> tuple[Run, StopOnInterrupt]:
    """Both stages; the model is saved as soon as there is one."""
    say, folder = accelerator.print, config.folder
    if seen := model.likelihood.seen:
        say(f"pixels are {seen}: drawn with their value as chance, afresh at every use")
    prior = learned_prior(config, model.config)
    budgets, batch_sizes = make_budgets(config, len(images), prior_class(prior))
    run = Run(config, model, images, budgets, batch_sizes, accelerator, folder, resumed)
    if resumed is not None:
        say(f"resuming from step {sum(b.step for b in budgets.values())}")
    else:
        if config.resume_from_checkpoint:
            say(f"no checkpoint in {folder}: starting afresh")
        if accelerator.is_main_process:  # of another run, which this one replaces
            checkpoint.remove_checkpoints(folder)
    with StopOnInterrupt() as stop:
        if not run.is_past("model"):
            run.train(ModelStage(run), stop)
            if accelerator.is_main_process:
                for stale in (*MEASURED, CARD, PROGRESS):
                    (folder / stale).unlink(missing_ok=True)
                # Before anything can go wrong.
                checkpoint.write_model(folder, model_files(run.model))
        run.model.eval()
        PriorStage(run, prior).learn(stop)
        if stop.asked:
            say(
                "stopping, and the model is saved as it is; where there is a checkpoint, "
                "--resume_from_checkpoint latest goes on"
            )
    accelerator.end_training()
    return run, stop


def leave_behind(
    config: TrainConfig, run: Run, held_out: ImageSet, base: BaseAutoencoder | None
) -> None:
    """The model's folder: weights, what was measured, pictures and the card."""
    model, folder, say = run.model, run.folder, run.say
    kept = model
    if config.save_fp16:
        half = copy.deepcopy(model).half()
        if all(t.isfinite().all() for t in half.state_dict().values()):
            kept = half
            model.load_state_dict(half.state_dict())  # measured as rounded as it is stored
        else:
            say("some weights are too large for --save_fp16: stored in full precision")
    checkpoint.write_model(folder, model_files(kept))
    say("measuring on the held-out images ...")
    results = evaluate(model, held_out, config.seed)
    source = config.model_name_or_path
    card = render_card(
        model.config,
        name=folder.resolve().name,
        repo=config.hub_model_id if config.push_to_hub else str(folder),
        results=results,
        dataset=run.images.name if expand(config.dataset).exists() else config.dataset,
        licence=config.license or run.images.licence,
        credit=run.images.credit,
        base_model=source if source and not is_path(source) else None,
        pictures=True,
        training={"summary": summary(run), "command": config.command()},
    )
    checkpoint.write_model(
        folder,
        model_files(kept)
        | {
            CARD: card.encode(),
            "train_config.json": as_json(config.public()),
            "evaluation.json": as_json(results),
            "samples.png": samples_png(model),
            "reconstructions.png": reconstructions_png(model, held_out),
        },
    )
    say(table(results))
    for words in advice(results, model).values():
        say(f"note: {words}")


def summary(run: Run) -> str:
    """How many steps, how long and on what, in words."""
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU core{'s' * (threads > 1)}"
    processor = torch.cuda.get_device_name() if run.device.type == "cuda" else cpu
    model, prior = run.budgets["model"], run.budgets["prior"]
    words = (
        f"{model.step} steps of {run.batch_sizes['model']} images in {model.spent / 60:.1f} "
        f"minutes on {processor}."
    )
    if model.progress < 1:
        words += f" It was stopped after {model.progress:.0%} of the way."
    if prior.step:
        size, minutes = run.batch_sizes["prior"], prior.spent / 60
        words += f" Then its prior: {prior.step} steps of {size} in {minutes:.1f} minutes."
        if prior.progress < 1:
            words += f" It was stopped after {prior.progress:.0%} of the way."
    return words


def say_what_next(config: TrainConfig, folder: Path, seconds: float) -> None:
    there = shlex.quote(str(folder))
    print(f"saved to {folder} after {seconds:.0f} s; now try:")
    print(f"  python app.py --model {there}    # the demo")
    print(f"  python train.py --model_name_or_path {there} --dataset path/to/others    # fine-tune")
    if not config.push_to_hub:
        print(f"  python -m hfvae.hub {there} you/name    # publish it")
