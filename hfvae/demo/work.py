"""What a model asks of a machine: counted before its weights are fetched, and timed afterwards."""

import math
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..base import BaseAutoencoder
from ..errors import HubError
from .inputs import words

MAX_MULTIPLICATIONS = 25 * 10**9  # an image: of 512x512 pixels, a spatial VAE by default has 23.3
MAX_NUMBERS = 2**22  # in the widest layer of an image, of which 64 are encoded at once
MAX_SECONDS = 60  # of a call


class Work(NamedTuple):
    """Of one image.

    Attributes:
        multiplications: to draw, decode and encode it.
        numbers: in the widest layer.
    """

    multiplications: int
    numbers: int


def check_work(model: BaseAutoencoder, name: str) -> None:
    """Raise HubError if a model asks for more than visitors may have; it needs no weights."""
    work = work_of(model)
    if work.multiplications > MAX_MULTIPLICATIONS:
        raise HubError(
            f"{name} takes {work.multiplications / 1e9:,.1f} billion multiplications an image; "
            f"this demo does up to {MAX_MULTIPLICATIONS / 1e9:,.1f} billion"
        )
    if work.numbers > MAX_NUMBERS:
        raise HubError(
            f"{name} has layers of {work.numbers / 1e6:,.1f} million numbers an image; "
            f"this demo takes up to {MAX_NUMBERS / 1e6:,.1f} million"
        )


def work_of(model: BaseAutoencoder) -> Work:
    """Count on the meta device, where nothing is computed; the model has to be there."""
    config, latents = model.config, model.bottleneck
    widest = config.dims

    def look(module: nn.Module, given: object, found: object) -> None:
        nonlocal widest
        if isinstance(found, Tensor):
            widest = max(widest, found.numel())

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model.encoder.eval()(torch.empty(1, config.channels, *config.size, device="meta"))
            model.decoder.eval()(torch.empty(1, *latents.shape, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    # Every cell of a grid is compared with all vectors of a codebook.
    cells = math.prod(latents.shape[1:])
    compared = cells * sum(tensor.numel() for tensor in latents.state_dict().values())
    multiplications = counter.get_total_flops() // 2 + compared + model.prior.work
    return Work(multiplications, widest)


class Limit(threading.local):
    """When the call that this thread works on has to be done, by the clock of `time.monotonic`."""

    until = math.inf


LIMIT = Limit()


@contextmanager
def in_time() -> Generator[None]:
    """Stop a call that takes too long at the next layer of a model that is `stoppable`."""
    LIMIT.until = time.monotonic() + MAX_SECONDS
    try:
        yield
    finally:
        LIMIT.until = math.inf


def stoppable(model: nn.Module) -> None:
    """Let each layer of a model look at the clock first."""

    def look(module: nn.Module, given: object) -> None:
        if time.monotonic() > LIMIT.until:
            raise words(f"This took more than {MAX_SECONDS} seconds: ask for fewer images.")

    for layer in model.modules():
        layer.register_forward_pre_hook(look)
