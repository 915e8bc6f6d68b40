"""The second stage of a training: the prior, by the latents of the model."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..evaluate import batches
from ..priors import prior_class
from .errors import Diverged
from .loop import Run, Stage
from .progress import StopOnInterrupt

ENOUGH_LATENTS = 20_000  # for a prior that is fitted
MOST_NUMBERS = 2**27  # in the latents that a prior is trained on: a GB, of means and variances
ASIDE = 256  # images at most by whose latents it is judged meanwhile
STRAYS = 0.01  # of a prior's draws, which it may have
BEST = "best"  # three numbers of the best prior, beside its tensors


class PriorStage(Stage):
    """−log p(z) of the model's latents; or a fit, where the prior takes no share of the training.

    It lowers KL(q(z) ‖ p(z)), the part of the KL that tells nothing about images (Hoffman & Johnson
    2016). So one that was learned with the model is trained on: without encoder and decoder, a step
    costs little.
    """

    name = "prior"

    def __init__(self, run: Run, prior: str) -> None:
        super().__init__(run)
        self.prior, self.kind = prior, prior_class(prior)
        # By latents that are left aside: too many strays and its nats, how far training was, and
        # what it was then.
        self.least, self.reached = (math.inf, math.inf), 0.0
        self.best = dict[str, Tensor]()

    def learn(self, stop: StopOnInterrupt) -> None:
        """Train the prior, or fit it, or leave it as it came with the model."""
        if self.kind.share:
            if not stop.asked and (self.budget.progress < 1 or self.run.is_past("model")):
                self.learn_by_steps(stop)
        elif self.kind.later:
            self.fit()
        images = self.run.images.first(ENOUGH_LATENTS)
        if self.run.model.prior.turns and images.factors is not None:
            self.turn(images, images.factors)

    def learn_by_steps(self, stop: StopOnInterrupt) -> None:
        """Where steps lead to no number, what was best before is left."""
        run = self.run
        try:
            run.train(self, stop)
        except Diverged as error:
            if run.processes > 1 or not self.best:  # others would wait for this one
                raise
            run.say(f"\n{error}")
            self.finish(self.module.eval())

    @property
    def module(self) -> nn.Module:
        return self.run.model.prior

    def examples(self) -> int:
        run = self.run
        run.say("training the prior on the latents ...")
        most = MOST_NUMBERS // (self.passes * math.prod(run.model.latent_shape))
        images = run.images.first(most)
        kept = self.encoded(images, lambda posterior: posterior.kept())
        aside = left_aside(len(images), run.config.seed).repeat(self.passes)
        self.kept, self.aside = kept[~aside], kept[aside]
        self.give_prior()
        return len(self.kept)

    def loss(self, prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        run = self.run
        # Drawn afresh at every use, since the spread of a posterior is a part of what it says.
        events = run.model.bottleneck.drawn(self.kept[index].to(run.device), run.noise)
        nll = prepared(events).mean()
        return nll, {"rate": nll.detach()}

    @torch.no_grad()
    def watch(self, module: Any) -> None:
        """Keep the best so far for latents left aside: few images are soon learned by heart."""
        run, noise = self.run, torch.Generator(self.run.device).manual_seed(self.run.config.seed)
        events = run.model.bottleneck.drawn(self.aside.to(run.device), noise)
        module.eval()
        size = self.run.batch_sizes[self.name]
        nll = torch.cat([module.nll(some) for some in events.split(size)]).mean().item()
        # Few latents are aside of a small set, and do not tell how far out latents lie.
        others = run.model.bottleneck.drawn(self.kept[:ASIDE].to(run.device), noise)
        found = max(0.0, module.strays(torch.cat([events, others])) - STRAYS), nll
        module.train()
        if found < self.least and math.isfinite(nll):
            self.least, self.reached = found, self.budget.progress
            self.best = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        return self.best | {BEST: torch.tensor([*self.least, self.reached], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        strays, nll, self.reached = state.pop(BEST).tolist()
        self.least = strays, nll
        self.best = {name: tensor.to(self.run.device) for name, tensor in state.items()}

    def finish(self, trained: Any) -> None:
        trained.load_state_dict(self.best)
        if self.reached < self.budget.progress:
            self.run.say(
                f"the prior is that of {self.reached:.0%} of its training: later ones gave less "
                "probability to latents that were left aside, or drew from where there are none"
            )
        self.run.model.prior = trained

    def fit(self) -> None:
        """A prior without parameters, from several draws of the latents of few images."""
        start, run = time.perf_counter(), self.run
        images = run.images.first(ENOUGH_LATENTS)
        times = max(1, ENOUGH_LATENTS // self.passes // len(images))
        noise = torch.Generator().manual_seed(run.config.seed)
        z = self.encoded(images, lambda posterior: posterior.events(times, noise))
        self.give_prior(most=len(z))
        run.model.prior.fit(z, run.config.seed)
        seconds = time.perf_counter() - start
        run.say(f"fitted the {self.prior} to {len(z):,} latents in {seconds:.0f} s")

    def turn(self, images: ImageSet, factors: Tensor) -> None:
        """Lay axes of the prior's base along the factors of images."""
        run = self.run
        # Not in the mirror, where factors may be others.
        z = self.encoded(images, lambda posterior: posterior.mode(), passes=1)
        run.model.prior.turn(z.to(run.device), factors.to(run.device))
        run.say(f"turned the base of the {self.prior} towards the factors of the images")

    def give_prior(self, most: int | None = None) -> None:
        """The model's new prior, with no more components than there are latents."""
        model = self.run.model
        if self.run.is_past("model") or not self.kind.later:
            return  # it came with the checkpoint, or with the model
        settings, asked = {}, getattr(model.config, "prior_components", None)
        if most is not None and asked is not None:
            settings["prior_components"] = min(asked, most)
        model.set_prior(self.prior, **settings)

    @property
    def passes(self) -> int:
        """Looks at every image: in the mirror too, where training flips."""
        return 1 + self.run.config.random_flip

    @torch.no_grad()
    def encoded(
        self, images: ImageSet, take: Callable[[Any], Tensor], passes: int | None = None
    ) -> Tensor:
        """What is taken of the posteriors of images, on the CPU."""
        model, seed, found = self.run.model, self.run.config.seed, []
        for mirror in (False, True)[: passes or self.passes]:
            for x in batches(model, images, seed):
                found.append(take(model.infer(x.flip(3) if mirror else x)).cpu())
        return torch.cat(found)


def left_aside(n: int, seed: int) -> Tensor:
    """Which of n images a prior is judged by and not trained on, bool (n,)."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order < min(ASIDE, math.ceil(n / 16))
