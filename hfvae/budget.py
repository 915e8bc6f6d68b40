"""How long to train, and in how large batches: what was asked for, and what follows from it."""

import math
from dataclasses import dataclass

SMALLEST_BATCH, LARGEST_BATCH = 16, 128  # images a step, unless told otherwise
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
