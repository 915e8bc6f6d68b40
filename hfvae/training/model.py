"""The first stage of a training: the model, by its own loss."""

from typing import Any

import torch
from torch import Tensor, nn

from ..evaluate import batches, latent_metrics
from ..functional import uniform
from ..hub import write_folder
from ..report import PROGRESS, advice, samples_png
from .budget import beta
from .errors import TrainingError
from .loop import Stage
from .progress import log_picture

DIVERGED = 100  # bits/dim that no model in training needs
WATCHED = 1024  # images whose latents are looked at
WATCHED_FROM = 0.5  # of the way: before, latents and codes may still come to life


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
        found = [model(x, noise) for x in batches(model, self.run.images.first(WATCHED), seed)]
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
            found = latent_metrics(run.model, run.images.first(WATCHED), config.seed)
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
