"""The model to train: of a preset, or of one that is fine-tuned."""

import dataclasses
from typing import Any

from ..base import BaseAutoencoder
from ..configs import PRESETS, Config
from ..models import FAMILIES, from_pretrained
from ..priors import prior_class
from .config import TrainConfig
from .errors import TrainingError

# Fields of a model's config that a training may set.
SETTINGS = (
    "widths", "latent_dim", "beta", "prior_components", "codebook_size", "likelihood",
)  # fmt: skip
OF_A_WEIGHED_RATE = ("kl_warmup_steps", "beta_start")  # which only families with a beta have


def with_base(config: TrainConfig) -> tuple[TrainConfig, BaseAutoencoder | None]:
    """The config with its `model` settled, and the model to fine-tune, if one was named.

    Images have that model's size and channels, unless told otherwise.

    Raises:
        TrainingError: the model is not what `model` says.
    """
    source = config.model_name_or_path
    if not source:
        return dataclasses.replace(config, model=config.model or "vae"), None
    base = from_pretrained(source)
    model = config.model or preset_like(base.config)
    preset = PRESETS[model]
    family: Any = preset.func
    if family.model_type != base.config.model_type:
        raise TrainingError(f"{source} is a {base.config.model_type}, not a {model}")
    for name, value in preset.keywords.items():
        if getattr(base.config, name) != value and getattr(config, name, None) is None:
            raise TrainingError(
                f"{source} is no {model}: its {name} is {getattr(base.config, name)}, not "
                f"{value}; leave --model away to keep what it is"
            )
    settled = dataclasses.replace(
        config,
        model=model,
        resolution=config.resolution or base.config.size,
        channels=config.channels or base.config.channels,
    )
    return settled, base


def preset_like(config: Config) -> str:
    """Where a model that is fine-tuned goes on: what has its prior, or the first of its kind."""
    alike = [name for name, preset in PRESETS.items() if preset().kind == config.kind]
    same = [name for name in alike if PRESETS[name].keywords.get("prior") == config.prior]
    return (same or alike)[0]


def model_config(
    config: TrainConfig, base: BaseAutoencoder | None, size: tuple[int, int], channels: int
) -> Config:
    """The preset, or the config of the model to fine-tune, with what was asked for.

    Its prior is that of the first stage: one that is fitted or trained later starts anew.

    Raises:
        TrainingError: something was asked for that the family does not have or take.
    """
    preset = PRESETS[config.model or "vae"]
    like = base.config if base else preset()
    given: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"image_size": size[0] if size[0] == size[1] else size, "channels": channels}
    fields = {f.name for f in dataclasses.fields(like)}
    unknown = sorted(given.keys() - fields)
    if "beta" not in fields:
        unknown += [name for name in OF_A_WEIGHED_RATE if getattr(config, name)]
    prior = learned_prior(config, like)
    if prior not in like.priors():
        unknown.append("prior")
    elif config.prior_fraction is not None and not prior_class(prior).share:
        raise TrainingError(f"--prior_fraction means nothing to --prior {prior}")
    if unknown:
        raise TrainingError(f"--{unknown[0]} means nothing to --model {config.model}")
    given["prior"] = type(like)().prior if prior_class(prior).later else prior
    try:
        return preset(**given) if base is None else dataclasses.replace(base.config, **given)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"--{error}") from error


def learned_prior(config: TrainConfig, like: Config) -> str:
    """The prior that a model of such a config ends with: what was asked for, or its family's."""
    preset = PRESETS[config.model or "vae"]
    return config.prior or preset.keywords.get("prior", like.trained_prior)


def build(
    config: TrainConfig, base: BaseAutoencoder | None, size: tuple[int, int], channels: int
) -> tuple[BaseAutoencoder, list[str]]:
    """The model, and the names of its tensors that start afresh although one is fine-tuned."""
    settings = model_config(config, base, size, channels)
    model = FAMILIES[settings.model_type](settings)
    return model, [] if base is None else carry_over(base, model)


def carry_over(base: BaseAutoencoder, model: BaseAutoencoder) -> list[str]:
    """Copy the weights that fit by name and shape; return the names of those that start afresh."""
    old, new = base.state_dict(), model.state_dict()
    fitting = {name: t for name, t in old.items() if name in new and new[name].shape == t.shape}
    model.load_state_dict(fitting, strict=False)
    return [name for name in new if name not in fitting]
