"""What can be said of a training: one frozen dataclass, and the flags that follow from it."""

import argparse
import dataclasses
import json
import math
import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ..configs import (
    LIKELIHOODS,
    PRESETS,
    PRIORS,
    Check,
    integer,
    number,
    one_of,
    optional,
    registered,
    several,
    switch,
)
from ..data import dataset_name
from ..errors import expand, printable
from ..space import SDKS

DEFAULT_STEPS = 600  # about two minutes of two cores on 64x64 sprites
TRACKERS = ("none", "trackio", "tensorboard", "wandb")


def text(name: str, value: Any) -> str:
    if not isinstance(value, (str, Path)) or not str(value):
        raise TypeError(f"{name} takes words, not {value!r:.80}")
    if printable(value) != str(value):
        raise ValueError(f"{name} must be UTF-8, not {value!r:.80}")
    return str(value)


def folder(name: str, value: Any) -> Path:
    return expand(text(name, value))


def resolution(name: str, value: Any) -> tuple[int, int]:
    """N, "NxM" or (N, M) -> (height, width)."""
    if isinstance(value, str):
        if not (found := re.fullmatch(r"(\d+)(?:x(\d+))?", value.lower())):
            raise ValueError(f"{name} is neither N nor HxW: {value!r:.80}")
        value = int(found[1]), int(found[2] or found[1])
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2:
        raise ValueError(f"{name} is neither N nor HxW: {value!r:.80}")
    height, width = (integer(8, 4096)(name, side) for side in sides)
    return height, width


def widths(name: str, value: Any) -> tuple[int, ...]:
    """32,64,128 or a list of numbers."""
    if isinstance(value, str):
        if not re.fullmatch(r"\d+(,\d+)*", value):
            raise ValueError(f"{name} takes a list like 32,64,128, not {value!r:.80}")
        value = [int(width) for width in value.split(",")]
    return several(integer(1, 4096), 0, 12)(name, value)


def licence_name(name: str, value: Any) -> str:
    if not re.fullmatch(r"[a-z0-9.-]+", text(name, value)):
        raise ValueError(f"{name} takes a name such as cc-by-4.0, not {value!r:.80}")
    return value


def at_least(low: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, int) and value < low:
            raise ValueError(f"{name} must be {low} or more, not {value}")
        return integer(low, 2**53)(name, value)  # what JSON keeps

    return check


def positive(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not 0 < value < math.inf:
        raise ValueError(f"{name} must be more than 0, not {value}")
    return number(0, 1e300)(name, value)


def flag(default: Any, check: Check, words: str = "", *, decides: bool = True) -> Any:
    """A field of TrainConfig.

    Args:
        default: None where something else decides.
        check: (name, value) -> the value as it is kept, or an exception.
        words: for --help.
        decides: whether the weights depend on it, so that a resumed run must have the same.
    """
    check = optional(check) if default is None else check
    metadata = {"check": check, "help": words, "decides": decides}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that train.py can be told; its flags are these fields. See `python train.py --help`.

    Raises:
        TypeError, ValueError: a value is not of its kind or out of bounds, or two do not go
            together; the message starts with the field's name.
    """

    model: str | None = flag(None, registered(PRESETS), f"{', '.join(PRESETS)}; default: vae")
    model_name_or_path: str | None = flag(None, text, "fine-tune this model: a folder or a Hub id")
    dataset: str = flag("sprites", text, "name, folder, parquet file or Hub id")
    image_column: str | None = flag(
        None, text, "the column with the images, if the data set has several"
    )
    data_dir: Path | None = flag(None, folder, "where torchvision's data are or go", decides=False)
    streaming: bool = flag(False, switch, "never store a Hub data set, only its pixels")
    max_train_samples: int | None = flag(None, at_least(1), "take only the first images")
    resolution: Any = flag(
        None, resolution, "N or HxW; the images' own if they agree on one of 8 to 128, else 64"
    )
    channels: int | None = flag(
        None, integer(1, 256), "1 grey, 3 colour; found by looking if not given"
    )
    random_flip: bool = flag(False, switch, "mirror images at random")
    widths: Any = flag(None, widths, "channels after each halving of the image: 32,64,128")
    latent_dim: int | None = flag(
        None,
        integer(1, 65536),
        "how many numbers a latent has, or a cell of a grid; default: 32, beta-vae 10, grid 8",
    )
    beta: float | None = flag(
        None, number(0, 1e6), "weight of the KL, in nats per image; default: 1, beta-vae 4"
    )
    beta_start: float | None = flag(
        None, positive, "a larger beta to start from: latents part better"
    )
    prior: str | None = flag(
        None,
        registered(PRIORS),
        f"{', '.join(PRIORS)}; default: mixture, flow-vae flow, grid autoregressive",
    )
    prior_components: int | None = flag(
        None, integer(1, 1000), "how many Gaussians a mixture has; default: 10"
    )
    codebook_size: int | None = flag(
        None, integer(3, 65536), "how many codes, for vq-vae and fsq-vae; default: 512"
    )
    prior_fraction: float | None = flag(
        None,
        number(0, 0.999),
        "of the training, for the prior alone; default: 0.5 for a transformer, 0.25 for a flow",
    )
    likelihood: str | None = flag(
        None, one_of(*LIKELIHOODS), f"{', '.join(LIKELIHOODS)}; default: the first"
    )
    license: str | None = flag(
        None, licence_name, "the images', for the card, such as cc-by-4.0", decides=False
    )
    output_dir: Path | None = flag(None, folder, "default: runs/<dataset>-<model>", decides=False)
    overwrite_output_dir: bool = flag(False, switch, "replace a model that is there", decides=False)
    seed: int = flag(0, integer(0, 2**32 - 1), "default: 0")
    train_batch_size: int | None = flag(
        None, at_least(2), "images a step, of all processes; default: 16 to 128, by set and time"
    )  # BatchNorm compares images
    num_train_epochs: float | None = flag(None, positive, "looks at every image")
    max_train_steps: int | None = flag(
        None, at_least(1), f"of the model; the prior's own come on top; default: {DEFAULT_STEPS}"
    )
    max_train_minutes: float | None = flag(None, positive, "in all, the prior's included")
    learning_rate: float = flag(2e-3, positive, "default: 0.002")
    lr_warmup_steps: int | None = flag(
        None, at_least(0), "default: 100, at most a tenth of the training"
    )
    kl_warmup_steps: int = flag(0, at_least(0), "steps over which beta grows from 0")
    gradient_accumulation_steps: int = flag(1, at_least(1), "batches a step")
    use_ema: bool = flag(False, switch, "save a moving average of the weights")
    save_fp16: bool = flag(False, switch, "store the weights in half the bytes", decides=False)
    mixed_precision: str | None = flag(
        None, one_of("no", "bf16", "fp16"), "no, bf16 or fp16; default: bf16 where it is fast"
    )
    compile: bool = flag(False, switch, "torch.compile: worth it on a GPU", decides=False)
    resume_from_checkpoint: str | None = flag(
        None, text, "latest, or a checkpoint's folder: go on from there", decides=False
    )
    checkpointing_steps: int = flag(
        500, at_least(0), "steps between checkpoints; 0: none; default: 500", decides=False
    )
    checkpoints_total_limit: int = flag(
        2, at_least(1), "how many are kept; default: 2", decides=False
    )
    report_to: str = flag("none", one_of(*TRACKERS), ", ".join(TRACKERS), decides=False)
    push_to_hub: bool = flag(False, switch, "publish the model when it is trained", decides=False)
    hub_model_id: str | None = flag(
        None, text, "owner/name; default: the name of the output folder", decides=False
    )
    hub_private_repo: bool = flag(False, switch, "make what is published private", decides=False)
    space_id: str | None = flag(
        None, text, "publish a demo of the model as this Space", decides=False
    )
    space_sdk: str = flag(
        "gradio", one_of(*SDKS), "gradio, or static: free for all; default: gradio", decides=False
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, f.metadata["check"](f.name, getattr(self, f.name)))
        budgets = ("num_train_epochs", "max_train_steps", "max_train_minutes")
        if len(given := [name for name in budgets if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{given[0]} does not go with {' or '.join(given[1:])}: give one")
        for name in ("hub_model_id", "hub_private_repo"):
            if getattr(self, name) and not (self.push_to_hub or self.space_id):
                raise ValueError(f"{name} needs push_to_hub")
        if self.space_sdk != "gradio" and not self.space_id:
            raise ValueError("space_sdk needs space_id")
        if self.beta_start and self.beta == 0:
            raise ValueError("beta_start falls by factors to beta, which must be more than 0")
        takes = [name for name, entry in PRIORS.items() if "prior_components" in entry.settings]
        if self.prior_components and self.prior not in (None, *takes):
            raise ValueError(f"prior_components needs prior {' or '.join(takes)}")

    @property
    def folder(self) -> Path:
        """Where the model goes, once `model` is settled."""
        return self.output_dir or Path("runs", f"{dataset_name(self.dataset)}-{self.model}")

    def deciding(self) -> dict[str, Any]:
        """The fields that the weights depend on, as JSON has them."""
        fields = [f.name for f in dataclasses.fields(self) if f.metadata["decides"]]
        return json.loads(json.dumps({name: getattr(self, name) for name in fields}))

    def public(self) -> dict[str, Any]:
        """All fields as JSON, without where things lie on this machine."""
        return {f.name: without_folder(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def command(self) -> str:
        """The command that makes the same model from scratch, without this machine's folders."""
        words = ["python", "train.py"]
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value == f.default or f.name in ("resume_from_checkpoint", "overwrite_output_dir"):
                continue
            words.append(f"--{f.name}")
            if value is not True:
                joined = "x" if f.name == "resolution" else ","
                several = isinstance(value, tuple)
                value = joined.join(map(str, value)) if several else without_folder(value)
                words.append(str(value))
        return shlex.join(words)


def without_folder(value: Any) -> Any:
    """What is published says nothing of where things lie on this machine."""
    if not isinstance(value, (str, Path)):
        return value
    path = expand(value)
    return path.name if path.is_absolute() or ".." in path.parts else str(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        known = [f"--{f.name}" for f in dataclasses.fields(TrainConfig)]
        close = [near for word in message.split() for near in get_close_matches(word, known, 1)]
        meant = f": did you mean {close[0]}?" if "unrecognized" in message and close else ""
        raise ValueError(f"{message}{meant}")


def parse(argv: list[str], description: str = "") -> TrainConfig:
    """Flags as `TrainConfig`: every field is one, in underscores or hyphens.

    Raises:
        ValueError, TypeError: a flag that there is not, or a value that it does not take.
    """
    summary, _, details = description.partition("\n\n")
    parser = _Parser(
        prog="train.py",
        description=summary,
        epilog=details,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for f in dataclasses.fields(TrainConfig):
        kind = next((kind for kind in (bool, int, float) if kind.__name__ in str(f.type)), str)
        how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        parser.add_argument(f"--{f.name}", help=f.metadata["help"], **how)
    # --max-train-steps is --max_train_steps.
    parts = (word.partition("=") for word in argv)
    given = parser.parse_args(
        [
            ("--" + name[2:].replace("-", "_") if name.startswith("--") else name) + equals + value
            for name, equals, value in parts
        ]
    )
    try:
        return TrainConfig(**vars(given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"--{error}") from error
