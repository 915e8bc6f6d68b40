"""What is seen of a training while it runs, and how it is asked to stop."""

import io
import math
import signal
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .budget import Budget
from .errors import Diverged


class Progress:
    """The bar and the trackers. Once a second, not every step: reading a number waits for a GPU."""

    def __init__(
        self, images_per_step: int, accelerator: Any, budget: Budget, before: int = 0
    ) -> None:
        from tqdm import tqdm

        self.images_per_step = images_per_step
        self.accelerator = accelerator
        self.bar = tqdm(
            total=100,
            initial=100 * budget.progress,  # or a resumed run would think that it is fast
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
            disable=not accelerator.is_main_process,
        )
        self.step, self.seconds = budget.step, budget.spent
        self.before = before  # steps of other stages: trackers take no step twice

    def show(self, budget: Budget, metrics: dict[str, Tensor], last: bool) -> None:
        seconds = budget.spent - self.seconds
        if seconds < 1 and not last:
            return
        numbers = {name: value.item() for name, value in metrics.items()}
        if not math.isfinite(sum(numbers.values())):
            raise Diverged(budget.step)
        rate = (budget.step - self.step) * self.images_per_step / max(seconds, 1e-9)
        self.step, self.seconds = budget.step, budget.spent
        self.bar.update(100 * budget.progress - self.bar.n)
        shown = ", ".join(
            f"{name} {value:.1f}{'' if name == 'perplexity' else ' nats'}"
            for name, value in numbers.items()
        )
        self.bar.set_postfix_str(f"step {budget.step}, {shown}, {rate:.0f} images/s")
        self.accelerator.log(numbers | {"images/s": rate}, step=self.before + budget.step)


class StopOnInterrupt:
    """Ctrl-C requests that the loop stops after its step; a second one means it.

    `asked` is what all processes have agreed on, which is `requested` where there is one.
    """

    requested = asked = False

    def __enter__(self) -> "StopOnInterrupt":
        self.previous = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_: Any) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.previous)


def log_picture(accelerator: Any, png: bytes, step: int) -> None:
    """Show a picture beside the curves of whatever tracker there is."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for tracker in accelerator.trackers:
        if tracker.name == "trackio":  # which accelerate gives no log_images
            import trackio

            tracker.log({"samples": trackio.Image(picture)}, step=step)
        else:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            tracker.log_images({"samples": pixels[None]}, step=step)
