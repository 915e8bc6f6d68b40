"""What is trained one after the other: the model, then a prior that is learned from its latents."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..evaluate import batches, latent_metrics
from ..functional import uniform
from ..hub import write_folder
from ..priors import Prior, prior_class
from ..report import PROGRESS, advice, samples_png
from .budget import beta
from .errors import TrainingError
from .loop import Run, Stage
from .progress import StopOnInterrupt, log_picture

DIVERGED = 100  # bits/dim that no model in training needs
WATCHED = 1024  # images whose latents are looked at
WATCHED_FROM = 0.5  # of the way: before, latents and codes may still come to life
ENOUGH_LATENTS = 20_000  # for a prior that is fitted
MOST_NUMBERS = 2**28  # in the latents that a prior is trained on


class ModelStage(Stage):
    """−log p(x|z) + beta · rate + penalty."""

    name = "model"

    @property
    def module(self) -> nn.Module:
        return self.run.model

    def examples(self) -> int:
        return len(self.run.images)

    def loss(self, prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        run, model = self.run, self.run.model
        x = run.images.batch(index, run.device)
        if run.config.random_flip:
            mirrored = uniform((len(x), 1, 1, 1), x, run.noise) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        x = model.likelihood.observe(x, run.noise).to(memory_format=run.layout)
        out = prepared(x, run.noise)
        weight = beta(run.config, self.budget, model.config.rate_weight)
        loss = (out.nll + weight * out.rate + out.penalty).mean()
        return loss, {"loss": loss.detach(), **out.metrics}

    def finish(self, trained: Any) -> None:
        # The layout in which from_pretrained builds it: another one rounds differently.
        self.run.model = trained.to(memory_format=torch.contiguous_format)
        self.refuse_diverged()

    @torch.inference_mode()
    def refuse_diverged(self) -> None:
        """Numbers that are finite can be nonsense too, and must not replace a model."""
        model, seed = self.run.model, self.run.config.seed
        noise = torch.Generator().manual_seed(seed)
        found = [model(x, noise) for x in batches(model, some(self.run.images, WATCHED), seed)]
        nats = torch.cat([out.nll + out.rate for out in found]).mean().item()
        bits = model.likelihood.bits_per_dim(nats, model.config.dims)
        if not bits < DIVERGED:
            raise TrainingError(
                f"training diverged: the model needs {bits:.3g} bits/dim, where guessing every "
                f"pixel needs {model.likelihood.guess}, so it was not saved; try a "
                f"--learning_rate below {self.run.config.learning_rate:g}"
            )

    def look(self, metrics: dict[str, Tensor]) -> None:
        """A picture of new images, and words once the latents go wrong."""
        run, budget, config = self.run, self.budget, self.run.config
        run.model.eval()
        start = max(config.kl_warmup_steps, config.lr_warmup_steps or 0)
        if budget.step > start and budget.progress > WATCHED_FROM:
            found = latent_metrics(run.model, some(run.images, WATCHED), config.seed)
            found |= {name: value.item() for name, value in metrics.items() if name == "kl"}
            for about, words in advice(found, run.model).items():
                if about not in run.said:
                    run.said.add(about)
                    run.say(f"\nwatch: after {budget.progress:.0%} of the way, {words}")
        if run.model.prior.samples:
            picture = samples_png(run.model)
            log_picture(run.accelerator, picture, budget.step)
            try:
                write_folder(run.folder, {PROGRESS: picture})
            except OSError as error:
                run.say(f"no picture: {error}; training goes on")
        run.model.train()


class PriorStage(Stage):
    """−log p(z) under a prior that comes after the model; or a fit, where it has no parameters."""

    name = "prior"

    def __init__(self, run: Run, prior: str) -> None:
        super().__init__(run)
        self.prior = prior
        self.trained = self.trains(prior)

    @staticmethod
    def trains(prior: str) -> bool:
        """Whether that prior takes steps of its own: it is of a later stage, and is not fitted."""
        kind = prior_class(prior)
        return kind.later and kind.fit is Prior.fit

    def learn(self, stop: StopOnInterrupt) -> None:
        """Train the prior, or fit it, or leave it as it came with the model."""
        if self.trained and (self.budget.progress < 1 or self.run.is_past("model")):
            self.run.train(self, stop)
        elif prior_class(self.prior).later and not self.trained:
            self.fit()
        elif self.run.model.prior.turns and (factors := self.run.images.factors) is not None:
            self.turn(factors)

    @property
    def module(self) -> nn.Module:
        return self.run.model.prior

    def examples(self) -> int:
        run = self.run
        run.say("training the prior on the latents ...")
        most = MOST_NUMBERS // (self.passes * math.prod(run.model.latent_shape))
        self.kept = self.encoded(some(run.images, most), lambda posterior: posterior.kept())
        self.give_prior()
        return len(self.kept)

    def loss(self, prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        run = self.run
        # Drawn afresh at every use, since the spread of a posterior is a part of what it says.
        events = run.model.bottleneck.drawn(self.kept[index].to(run.device), run.noise)
        nll = prepared(events).mean()
        return nll, {"rate": nll.detach()}

    def finish(self, trained: Any) -> None:
        self.run.model.prior = trained

    def fit(self) -> None:
        """A prior without parameters, from several draws of the latents of few images."""
        start, run = time.perf_counter(), self.run
        images = some(run.images, ENOUGH_LATENTS)
        times = max(1, ENOUGH_LATENTS // self.passes // len(images))
        noise = torch.Generator().manual_seed(run.config.seed)
        z = self.encoded(images, lambda posterior: posterior.events(times, noise))
        self.give_prior(most=len(z))
        run.model.prior.fit(z, run.config.seed)
        seconds = time.perf_counter() - start
        run.say(f"fitted the {self.prior} to {len(z):,} latents in {seconds:.0f} s")

    def turn(self, factors: Tensor) -> None:
        """Lay axes of the prior's base along the factors of few images."""
        run = self.run
        images = some(run.images, ENOUGH_LATENTS)
        # Without those in the mirror, whose factors may be others.
        z = self.encoded(images, lambda posterior: posterior.mode())[: len(images)]
        run.model.prior.turn(z.to(run.device), factors[: len(images)].to(run.device))
        run.say(f"turned the base of the {self.prior} towards the factors of the images")

    def give_prior(self, most: int | None = None) -> None:
        """The model's new prior, with no more components than there are latents."""
        model = self.run.model
        if self.run.is_past("model"):
            return  # it came with the checkpoint
        settings, asked = {}, getattr(model.config, "prior_components", None)
        if most is not None and asked is not None:
            settings["prior_components"] = min(asked, most)
        model.set_prior(self.prior, **settings)

    @property
    def passes(self) -> int:
        """Looks at every image: in the mirror too, where training flips."""
        return 1 + self.run.config.random_flip

    @torch.inference_mode()
    def encoded(self, images: ImageSet, take: Callable[[Any], Tensor]) -> Tensor:
        """What is taken of the posteriors of images, on the CPU."""
        model, seed, found = self.run.model, self.run.config.seed, []
        for mirror in (False, True)[: self.passes]:
            for x in batches(model, images, seed):
                found.append(take(model.infer(x.flip(3) if mirror else x)).cpu())
        return torch.cat(found).clone()  # outside of inference mode it is an ordinary tensor


def some(images: ImageSet, most: int) -> ImageSet:
    """The first images of a set."""
    return dataclasses.replace(images, pixels=images.pixels[:most])
