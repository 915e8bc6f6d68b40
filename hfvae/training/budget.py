"""How long to train, in how large batches, and what changes on the way."""

import math
from dataclasses import dataclass

from ..priors import Prior
from .config import DEFAULT_STEPS, TrainConfig

SMALLEST_BATCH, LARGEST_BATCH = 16, 128  # images a step, unless told otherwise
LR_WARMUP = 100  # steps
# Steps up to which smaller batches are worth more than larger ones. Measured on 360 grey faces of
# 112x92 and one core, 90 seconds each: 5.43 bits/dim in batches of 16, 5.76 of 32, 6.22 of 64.
ENOUGH_STEPS = 2000


@dataclass
class Budget:
    """How far along training is, from 0 to 1, by whichever of steps and minutes was given."""

    steps: int | None
    seconds: float | None
    step: int = 0
    spent: float = 0.0

    @property
    def progress(self) -> float:
        if self.seconds:
            return min(1.0, self.spent / self.seconds)
        return min(1.0, self.step / self.steps) if self.steps else 1.0


def batch_size(images: int, seen: float = math.inf) -> int:
    """Images a step, for a set of so many images, of which training will see so many.

    A power of two from 16 to 128: at most an eighth of the set, and such that there are enough
    steps.
    """
    wanted = min(seen / ENOUGH_STEPS, images / 8, LARGEST_BATCH)
    return 2 ** math.floor(math.log2(max(wanted, SMALLEST_BATCH)))


def make_budgets(
    config: TrainConfig, images: int, prior: type[Prior]
) -> tuple[dict[str, Budget], dict[str, int]]:
    """The budget of each stage, and images a step where no time has to be measured to know them.

    Args:
        config: what was asked for.
        images: how many there are.
        prior: what the model ends with.
    """
    share = prior.share
    if share and config.prior_fraction is not None:
        share = config.prior_fraction
    given = config.train_batch_size
    sizes = {"model": given, "prior": given} if given else {}
    if not prior.later:  # its steps are cheap, and small batches would teach it little
        sizes.setdefault("prior", batch_size(images))
    if config.max_train_minutes:
        seconds = 60 * config.max_train_minutes
        budgets = {
            "model": Budget(None, (1 - share) * seconds),
            "prior": Budget(None, share * seconds),
        }
        return budgets, sizes
    steps = config.max_train_steps or DEFAULT_STEPS
    seen = (config.num_train_epochs or math.inf) * images
    size = given or batch_size(images, seen)
    if config.num_train_epochs:
        steps = math.ceil(seen / (size * config.gradient_accumulation_steps))
    budgets = {
        "model": Budget(steps, None),
        "prior": Budget(math.ceil(round(steps * share / (1 - share), 6)), None),  # 600, not 601
    }
    # A step of a later prior takes longer, and many small ones are worth more than few large ones.
    return budgets, {"model": size, "prior": max(SMALLEST_BATCH, size // 4)} | sizes


def learning_rate(config: TrainConfig, budget: Budget) -> float:
    """Linear warm-up, then a cosine down to 2 %.

    Unless told otherwise, the warm-up takes 100 steps, and in short trainings a tenth of the way.
    """
    given = config.lr_warmup_steps
    warm = min(1.0, (budget.step + 1) / max(1, LR_WARMUP if given is None else given))
    if given is None:
        warm = max(warm, min(1.0, budget.progress / 0.1))
    return config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * budget.progress)))


def beta(config: TrainConfig, budget: Budget, last: float) -> float:
    """The weight of the KL, which ends as that of the config.

    It grows from 0 over --kl_warmup_steps; or it falls from --beta_start by equal factors over the
    first 70 %. Under a strong pressure only what tells most is encoded, each by itself; as the
    pressure falls the rest joins it (Burgess et al. 2018, arXiv:1804.03599, by a capacity instead).
    """
    warm = min(1.0, (budget.step + 1) / max(1, config.kl_warmup_steps))
    if config.beta_start is None:
        return last * warm
    left = 1 - min(1.0, budget.progress / 0.7)
    return warm * config.beta_start**left * last ** (1 - left)
