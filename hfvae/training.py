"""The training loop: first the model, then, for a VQ-VAE, its prior; never lost, on many devices.

With a budget of steps or epochs, a run that was killed at any moment and resumed ends with the
same weights as one that was not, bit for bit on a CPU; and several processes train what one would,
because noise is drawn for the whole batch and every process takes its rows.
"""

import argparse
import copy
import dataclasses
import io
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import checkpoint
from .budget import SMALLEST_BATCH, Budget, batch_size
from .checkpoint import State
from .data import ImageSet
from .errors import expand
from .evaluate import batches, latent_metrics
from .functional import Shard, reparameterize, uniform
from .machine import best_layout
from .models import VAE, VQVAE, BaseAutoencoder
from .priors import GaussianMixture
from .report import advice, samples_png
from .storage import write_folder

PROGRESS = "progress.png"  # new images while it trains
FOR_THE_MIXTURE = 20_000  # latents that a mixture is fitted to
STAGES = ("model", "prior")
LR_WARMUP = 100  # steps
AGREE = 10  # steps after which processes agree on the time and on stopping
APART = 10  # seconds at least between two looks at how training goes
DIVERGED = 100  # bits/dim that no model in training needs
WATCHED = 1024  # images whose latents are looked at
# Flags that change nothing of the weights, and may be others when a run is resumed.
FREE = (
    "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "checkpointing_steps",
    "checkpoints_total_limit", "report_to", "push_to_hub", "hub_model_id", "hub_private_repo",
    "space_id", "data_dir", "compile", "save_fp16", "license",
)  # fmt: skip


# (the module as accelerate prepared it, indices of a batch) -> loss, metrics
LossOf = Callable[[Any, Tensor], tuple[Tensor, dict[str, Tensor]]]


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""


def index_batches(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Every image once an epoch, in an order that the seed fixes, without end."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:size]
        left = left[size:]


def learning_rate(args: argparse.Namespace, budget: Budget) -> float:
    """Linear warm-up, then a cosine down to 2 %.

    Unless told otherwise, the warm-up takes 100 steps, and in short trainings a tenth of the way.
    """
    given = args.lr_warmup_steps
    warm = min(1.0, (budget.step + 1) / max(1, LR_WARMUP if given is None else given))
    if given is None:
        warm = max(warm, min(1.0, budget.progress / 0.1))
    return args.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * budget.progress)))


def no_number(step: int) -> str:
    return (
        f"the loss is no longer a number after {step} steps, so this stage was not "
        "saved: try a lower --learning_rate, or --mixed_precision no"
    )


def beta(args: argparse.Namespace, budget: Budget, last: float) -> float:
    """The weight of the KL, which ends as that of the config.

    It grows from 0 over --kl_warmup_steps; or it falls from --beta_start by equal factors over the
    first 70 %. Under a strong pressure only what tells most is encoded, each by itself; as the
    pressure falls the rest joins it (Burgess et al. 2018, arXiv:1804.03599, by a capacity instead).
    """
    warm = min(1.0, (budget.step + 1) / max(1, args.kl_warmup_steps))
    if args.beta_start is None:
        return last * warm
    left = 1 - min(1.0, budget.progress / 0.7)
    return warm * args.beta_start**left * last ** (1 - left)


class Progress:
    """The bar and the trackers. Once a second, not every step: reading a number waits for a GPU."""

    def __init__(self, images_per_step: int, accelerator: Any, budget: Budget) -> None:
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

    def show(self, budget: Budget, metrics: dict[str, Tensor], last: bool) -> None:
        seconds = budget.spent - self.seconds
        if seconds < 1 and not last:
            return
        numbers = {name: value.item() for name, value in metrics.items()}
        if not math.isfinite(sum(numbers.values())):
            raise TrainingError(no_number(budget.step))
        rate = (budget.step - self.step) * self.images_per_step / max(seconds, 1e-9)
        self.step, self.seconds = budget.step, budget.spent
        self.bar.update(100 * budget.progress - self.bar.n)
        nats = ", ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        self.bar.set_postfix_str(f"step {budget.step}, {nats} nats, {rate:.0f} images/s")
        self.accelerator.log(numbers | {"images/s": rate}, step=budget.step)


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


def moving_average(kept: Sequence[Tensor], new: Sequence[Tensor], updates: Tensor | int) -> None:
    """kept ← γ kept + (1−γ) new, with a γ that grows to 0.999, so that the start is forgotten."""
    decay = min(0.999, (1 + int(updates)) / (10 + int(updates)))
    for old, value in zip(kept, new, strict=True):
        old.lerp_(value, 1 - decay) if old.is_floating_point() else old.copy_(value)


class Run:
    """A training and all that it needs to go on later.

    Args:
        args: the flags of train.py.
        model: what is trained.
        images: what it is trained on.
        budgets: of the model and of its prior.
        batch_sizes: images a step of either stage, where that is settled.
        accelerator: of accelerate.
        resumed: a checkpoint to go on from.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: BaseAutoencoder,
        images: ImageSet,
        budgets: Sequence[Budget],
        batch_sizes: Mapping[str, int],
        accelerator: Any,
        resumed: State | None = None,
    ) -> None:
        self.args, self.accelerator, self.batch_sizes = args, accelerator, dict(batch_sizes)
        self.images = images.resident(accelerator.device)
        self.budgets = dict(zip(STAGES, budgets, strict=True))
        self.device = accelerator.device
        self.processes = accelerator.num_processes
        self.noise = torch.Generator(self.device)
        if self.processes > 1:
            self.noise = Shard(self.device)
            self.noise.rank, self.noise.world = accelerator.process_index, self.processes
        self.noise.manual_seed(args.seed)
        self.resumed = resumed
        self.said: set[str] = set()  # what the watch has warned of
        if self.processes > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.layout = best_layout(model, self.device)
        self.model = model.to(self.device).to(memory_format=self.layout)  # ty: ignore[no-matching-overload]
        if resumed is not None:
            self.go_on(resumed)

    def go_on(self, state: State) -> None:
        """Put back everything but the optimizer and the average, which a stage makes itself."""
        if state.numbers["stage"] == "prior":
            self.model.set_prior("autoregressive")
            self.model.to(memory_format=torch.contiguous_format)
        self.model.load_state_dict(state.part("model"))
        torch.set_rng_state(state.tensors["rng.torch"])
        self.noise.set_state(state.tensors["rng.noise"])
        self.batch_sizes = state.numbers["batch_sizes"]
        for name, (step, spent) in state.numbers["budgets"].items():
            self.budgets[name].step, self.budgets[name].spent = step, spent

    def save(self, stage: str, optimizer: Any, average: Any) -> None:
        """Write a checkpoint; a full disk costs the checkpoint and not the training."""
        if not self.accelerator.is_main_process or not self.args.checkpointing_steps:
            return
        budgets = {name: (b.step, b.spent) for name, b in self.budgets.items()}
        step = sum(b.step for b in self.budgets.values())
        if not all(t.isfinite().all() for t in self.model.state_dict().values()):
            raise TrainingError(no_number(step))
        tensors = {"rng.torch": torch.get_rng_state(), "rng.noise": self.noise.get_state()}
        tensors |= checkpoint.named("model", self.model.state_dict())
        tensors |= checkpoint.named("optimizer", checkpoint.moments(optimizer))
        if average is not None:
            tensors |= checkpoint.named("average", average.state_dict())
        numbers = {
            "stage": stage,
            "budgets": budgets,
            "batch_sizes": self.batch_sizes,
            "threads": torch.get_num_threads(),
            "flags": self.args.given,
        }
        try:
            state = State(tensors, numbers)
            checkpoint.write(self.args.output_dir, step, state, self.args.checkpoints_total_limit)
        except OSError as error:
            self.accelerator.print(f"no checkpoint at step {step}: {error}; training goes on")

    def optimize(
        self,
        stage: str,
        module: nn.Module,
        loss_of: LossOf,
        n: int,
        stop: StopOnInterrupt,
        look: Callable[[dict[str, Tensor]], None] = lambda metrics: None,
    ) -> Any:
        """Train a module until the budget is spent or Ctrl-C; return it, or its moving average.

        Args:
            stage: "model" or "prior".
            n: how many images or codes there are to draw indices from.
            look: called with the metrics at every tenth of the way, ten seconds apart.
        """
        args, accelerator, budget = self.args, self.accelerator, self.budgets[stage]
        every = args.checkpointing_steps
        average = None
        if args.use_ema:
            average = torch.optim.swa_utils.AveragedModel(
                module, multi_avg_fn=moving_average, use_buffers=True
            )
        raw = torch.optim.AdamW(
            module.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), fused=True
        )
        if self.resumed is not None and self.resumed.numbers["stage"] == stage:
            checkpoint.set_moments(raw, self.resumed.part("optimizer"))
            if average is not None:
                average.load_state_dict(self.resumed.part("average"))
        prepared, optimizer = accelerator.prepare(
            torch.compile(module) if args.compile else module, raw
        )
        prepared.train()
        if stage not in self.batch_sizes:
            self.batch_sizes[stage] = self.batch_by_trying(budget, module, loss_of, n)
        size = self.batch_sizes[stage]
        progress = Progress(size * args.gradient_accumulation_steps, accelerator, budget)
        batches_drawn = index_batches(n, size, args.seed)
        for _ in range(budget.step * args.gradient_accumulation_steps):
            next(batches_drawn)
        start = time.perf_counter() - budget.spent
        tenth, looked = math.floor(10 * budget.progress) / 10, budget.spent
        if stage == "prior" and not budget.step:
            self.save(stage, raw, average)  # between the stages
        while budget.progress < 1 and not stop.asked:
            for _ in range(args.gradient_accumulation_steps):
                index = next(batches_drawn)
                mine = index[accelerator.process_index :: accelerator.num_processes]
                with accelerator.accumulate(prepared):
                    loss, metrics = loss_of(prepared, mine)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(module.parameters(), 1.0)
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(args, budget)
                    optimizer.step()
                    optimizer.zero_grad()
            if average is not None:
                average.update_parameters(module)
            budget.step += 1
            self.agree(budget, time.perf_counter() - start, stop)
            done = stop.asked or budget.progress >= 1
            progress.show(budget, metrics, last=done)
            if every and (budget.step % every == 0 or stop.asked) and budget.progress < 1:
                self.average_statistics(module)
                if average is not None:
                    self.average_statistics(average.module)
                self.save(stage, raw, average)
            due = budget.progress >= tenth + 0.1 and budget.spent >= looked + APART
            if due and not done and accelerator.is_main_process:
                tenth, looked = math.floor(10 * budget.progress) / 10, budget.spent
                look(metrics)
        progress.bar.close()
        # accelerate's: no autocast from here on, and anew if the module is trained again.
        for left in ("forward", "_original_forward", "_is_accelerate_prepared"):
            module.__dict__.pop(left, None)
        kept = module if average is None else average.module
        self.average_statistics(kept)
        return kept.eval()

    def batch_by_trying(self, budget: Budget, module: nn.Module, loss_of: LossOf, n: int) -> int:
        """Images a step for so many minutes, by how long a few of them take here."""
        trial, noise = copy.deepcopy(module).train(), self.noise.get_state()
        index = torch.arange(SMALLEST_BATCH) % n
        for _ in range(2):  # the first time is not counted: it also sets up the second
            start = time.perf_counter()
            with self.accelerator.autocast():
                loss = loss_of(trial, index)[0]
            loss.backward()
            loss.item()  # waits for a GPU
        self.noise.set_state(noise)
        rate = torch.tensor(SMALLEST_BATCH / (time.perf_counter() - start), device=self.device)
        rate = self.accelerator.reduce(rate, "sum").item()
        size = batch_size(n, rate * (budget.seconds or 0) / self.args.gradient_accumulation_steps)
        size = math.ceil(size / self.processes) * self.processes
        self.accelerator.print(f"in batches of {size}, at about {rate:.0f} images/s")
        return size

    def agree(self, budget: Budget, spent: float, stop: StopOnInterrupt) -> None:
        """The seconds that were spent and whether to stop, the same on every process."""
        if self.processes == 1:
            budget.spent, stop.asked = spent, stop.requested
        elif budget.step % AGREE == 0:
            mine = torch.tensor([spent, float(stop.requested)], device=self.device)
            largest = self.accelerator.gather(mine[None]).amax(0)
            budget.spent, stop.asked = largest[0].item(), bool(largest[1])

    def average_statistics(self, module: nn.Module) -> None:
        """BatchNorm's running statistics differ between processes: take their mean."""
        if self.processes == 1:
            return
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                for statistic in (part.running_mean, part.running_var):
                    if statistic is not None:
                        statistic.copy_(self.accelerator.reduce(statistic, "mean"))

    def fit_model(self, stop: StopOnInterrupt) -> None:
        """The first stage: −log p(x|z) + penalty."""
        args, model, budget = self.args, self.model, self.budgets["model"]
        if self.resumed is not None and self.resumed.numbers["stage"] == "prior":
            model.eval()
            return

        def loss_of(prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            x = self.images.batch(index, self.device)
            if args.random_flip:
                mirrored = uniform((len(x), 1, 1, 1), x, self.noise) < 0.5
                x = torch.where(mirrored, x.flip(3), x)
            x = model.likelihood.observe(x, self.noise).to(memory_format=self.layout)
            if isinstance(model, VAE):
                model.bottleneck.beta = beta(args, budget, model.config.beta)
            out = prepared(x, self.noise)
            return out.loss, out.metrics

        kept = self.optimize("model", model, loss_of, len(self.images), stop, self.look)
        if isinstance(kept, VAE):
            kept.bottleneck.beta = kept.config.beta
        # The layout in which from_pretrained builds it: another one rounds differently.
        self.model = kept.to(memory_format=torch.contiguous_format)
        self.refuse_diverged()

    @torch.inference_mode()
    def refuse_diverged(self) -> None:
        """Numbers that are finite can be nonsense too, and must not replace a model."""
        args, model = self.args, self.model
        some = dataclasses.replace(self.images, pixels=self.images.pixels[:WATCHED])
        noise = torch.Generator().manual_seed(args.seed)
        found = [model(x, noise).metrics for x in batches(model, some, args.seed)]
        nats = sum(float(m["reconstruction"] + m.get("kl", 0)) for m in found) / len(found)
        bits = model.likelihood.bits_per_dim(nats, model.config.dims)
        if not bits < DIVERGED:
            raise TrainingError(
                f"training diverged: the model needs {bits:.3g} bits/dim, where guessing every "
                f"pixel needs 8, so it was not saved; try a --learning_rate below "
                f"{args.learning_rate:g}"
            )

    def look(self, metrics: dict[str, Tensor]) -> None:
        """A picture of new images, and words once the latents go wrong."""
        budget, say = self.budgets["model"], self.accelerator.print
        self.model.eval()
        start = max(self.args.kl_warmup_steps, self.args.lr_warmup_steps or 0)
        if budget.step > start and budget.progress > 0.15:
            some = dataclasses.replace(self.images, pixels=self.images.pixels[:WATCHED])
            found = latent_metrics(self.model, some, self.args.seed)
            found |= {name: value.item() for name, value in metrics.items() if name == "kl"}
            for about, words in advice(found, self.model).items():
                if about not in self.said:
                    self.said.add(about)
                    say(f"\nwatch: after {budget.progress:.0%} of the way, {words}")
        if self.model.prior is not None:
            picture = samples_png(self.model)
            log_picture(self.accelerator, picture, budget.step)
            try:
                write_folder(self.args.output_dir, {PROGRESS: picture})
            except OSError as error:
                say(f"no picture: {error}; training goes on")
        self.model.train()

    def fit_prior(self, stop: StopOnInterrupt) -> None:
        """The second stage: p(z) for a model that has none yet, fitted to its latents."""
        args, model, budget = self.args, self.model, self.budgets["prior"]
        say = self.accelerator.print
        if isinstance(model, VQVAE) and budget.progress < 1 and not stop.asked:
            say("training the prior on the codes ...")
            codes = all_latents(model, self.images, args.seed, len(self.images))
            if args.random_flip:
                mirrored = all_latents(model, self.images, args.seed, len(self.images), mirror=True)
                codes = torch.cat([codes, mirrored])
            if model.config.prior != "autoregressive":
                model.set_prior("autoregressive")

            def loss_of(prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
                nll = prepared(codes[index].to(model.device).long()).mean()
                return nll, {"codes": nll.detach()}

            model.prior = self.optimize("prior", model.prior, loss_of, len(codes), stop)
        elif not isinstance(model, VQVAE) and args.prior != "standard-normal":
            start = time.perf_counter()
            z = self.mixture_latents(model)
            components = getattr(model.config, "prior_components", 1)
            model.set_prior("mixture", prior_components=min(components, len(z)))
            assert isinstance(model.prior, GaussianMixture)
            model.prior.fit(z, args.seed)
            say(
                f"fitted {len(model.prior.weights)} Gaussians to {len(z):,} latents in "
                f"{time.perf_counter() - start:.0f} s"
            )

    def mixture_latents(self, model: BaseAutoencoder) -> Tensor:
        """What a mixture is fitted to, on the CPU: of few images, several draws each.

        Every image is encoded once, and once more in the mirror if training flips.
        """
        seed, posteriors = self.args.seed, []
        for mirror in (False, True)[: 1 + self.args.random_flip]:
            posteriors.append(all_latents(model, self.images, seed, FOR_THE_MIXTURE, mirror=mirror))
        z = torch.cat(posteriors)
        if not isinstance(model, VAE):
            return z
        draws = max(1, FOR_THE_MIXTURE // len(z))
        mu, logvar = z.repeat(draws, 1).chunk(2, dim=1)
        return reparameterize(mu, logvar, torch.Generator().manual_seed(seed))


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


def flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that decide the weights, as they were given and as JSON has them."""
    return json.loads(
        json.dumps({k: v for k, v in vars(args).items() if k not in FREE}, default=str)
    )


def find_checkpoint(args: argparse.Namespace) -> State | None:
    """The checkpoint that --resume_from_checkpoint asks for; None if `latest` finds none.

    Raises:
        FileNotFoundError, HubError: there is none at that place, or it is damaged.
        TrainingError: it is of a run with other flags.
    """
    if args.resume_from_checkpoint == "latest":
        found = checkpoint.existing(args.output_dir)
        if not found:
            return None
        folder = found[-1]
    else:
        folder = expand(args.resume_from_checkpoint)
    state = checkpoint.read(folder)
    then, now = state.numbers["flags"], args.given
    changed = [
        f"--{name} was {then.get(name)} and is {now.get(name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if changed:
        raise TrainingError(
            f"{folder} is of a run with other flags: {'; '.join(changed)}. Give the same, or start "
            "afresh in another --output_dir"
        )
    return state


@torch.inference_mode()
def all_latents(
    model: BaseAutoencoder, images: ImageSet, seed: int, most: int, mirror: bool = False
) -> Tensor:
    """What the encoder says of the first images, on the CPU: codes, or mean and log-variance."""
    found = []
    for x in batches(model, dataclasses.replace(images, pixels=images.pixels[:most]), seed):
        x = x.flip(3) if mirror else x
        if isinstance(model, VAE):
            z = torch.cat(model.posterior(x), dim=1)
        elif isinstance(model, VQVAE):
            z = model.codes(x).int()
        else:
            z = model.encode(x)
        found.append(z.cpu())
    return torch.cat(found).clone()
