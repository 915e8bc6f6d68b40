"""The training loop: never lost, on many devices.

With a budget of steps or epochs, a run that was killed at any moment and resumed ends with the
same weights as one that was not, bit for bit on a CPU; and several processes train what one would,
because noise is drawn for the whole batch and every process takes its rows.
"""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseAutoencoder
from ..data import ImageSet
from ..errors import expand
from ..functional import Shard
from ..machine import best_layout
from . import checkpoint
from .budget import SMALLEST_BATCH, Budget, batch_size, learning_rate
from .checkpoint import State
from .config import TrainConfig
from .errors import Diverged, TrainingError
from .progress import Progress, StopOnInterrupt

OTHERWISE = "give the same, or start afresh in another --output_dir"
AGREE = 10  # steps after which processes agree on the time and on stopping
APART = 10  # seconds at least between two looks at how training goes
WATCHING = 0.1  # of the time at most, where time is the budget


def index_batches(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Every image once an epoch, in an order that the seed fixes, without end."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:size]
        left = left[size:]


def moving_average(kept: Sequence[Tensor], new: Sequence[Tensor], updates: Tensor | int) -> None:
    """kept ← γ kept + (1−γ) new, with a γ that grows to 0.999, so that the start is forgotten."""
    decay = min(0.999, (1 + int(updates)) / (10 + int(updates)))
    for old, value in zip(kept, new, strict=True):
        old.lerp_(value, 1 - decay) if old.is_floating_point() else old.copy_(value)


class Stage(ABC):
    """A module, and a loss of examples that are known by their numbers."""

    name: str

    def __init__(self, run: Run) -> None:
        self.run = run
        self.budget = run.budgets[self.name]

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What is trained."""

    @abstractmethod
    def examples(self) -> int:
        """How many there are; before anything is trained."""

    @abstractmethod
    def loss(self, prepared: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over a batch, and numbers to show.

        Args:
            prepared: the module as accelerate prepared it.
            index: the numbers of the examples.
        """

    @abstractmethod
    def finish(self, trained: Any) -> None:
        """Put the trained module, or its moving average, in its place."""

    def look(self, metrics: dict[str, Tensor]) -> None:  # noqa: B027
        """Called at every tenth of the way, on the main process."""

    def watch(self, module: nn.Module) -> None:  # noqa: B027
        """Called at the start, at every twentieth of the way and at Ctrl-C, on every process.

        Args:
            module: what would be left if training ended here.
        """

    def state(self) -> dict[str, Tensor]:
        """What of it a checkpoint holds."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Put that back."""


class Run:
    """A training and all that it needs to go on later.

    Args:
        config: what was asked for.
        model: what is trained.
        images: what it is trained on.
        budgets: of each stage.
        batch_sizes: images a step of each stage, where that is settled.
        accelerator: of accelerate.
        folder: where checkpoints go.
        resumed: a checkpoint to go on from.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: BaseAutoencoder,
        images: ImageSet,
        budgets: Mapping[str, Budget],
        batch_sizes: Mapping[str, int],
        accelerator: Any,
        folder: Path,
        resumed: State | None = None,
    ) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.data = images.fingerprint()
        self.images = images.resident(accelerator.device)
        self.device = accelerator.device
        self.processes = accelerator.num_processes
        self.budgets = budgets
        self.batch_sizes = {name: self.shared(size) for name, size in batch_sizes.items()}
        self.say = accelerator.print
        self.noise = torch.Generator(self.device)
        if self.processes > 1:
            self.noise = Shard(self.device)
            self.noise.rank, self.noise.world = accelerator.process_index, self.processes
        self.noise.manual_seed(config.seed)
        self.said: set[str] = set()  # what the watch has warned of
        if self.processes > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.layout = best_layout(model, self.device)
        self.model = model.to(self.device).to(memory_format=self.layout)
        self.resumed = resumed
        if resumed is not None:
            self.restore(resumed)

    def restore(self, state: State) -> None:
        """Put back everything but the optimizer and the average, which a stage makes itself.

        Raises:
            TrainingError: it is of other images, or of another model.
        """
        if state.numbers["data"] != self.data:
            raise TrainingError(f"the checkpoint is of a run on other images; {OTHERWISE}")
        self.model.set_prior(state.numbers["prior"])
        if self.is_past("model"):
            self.model.to(memory_format=torch.contiguous_format)
        try:
            self.model.load_state_dict(state.part("model"))
        except RuntimeError as error:
            raise TrainingError(f"the checkpoint is of another model; {OTHERWISE}") from error
        torch.set_rng_state(state.tensors["rng.torch"])
        self.noise.set_state(state.tensors["rng.noise"])
        self.batch_sizes = state.numbers["batch_sizes"]
        for name, (step, spent) in state.numbers["budgets"].items():
            self.budgets[name].step, self.budgets[name].spent = step, spent

    def is_past(self, stage: str) -> bool:
        """Whether the checkpoint that the run went on from is of a later stage."""
        names = list(self.budgets)
        resumed = self.resumed and self.resumed.numbers["stage"]
        return bool(resumed) and names.index(resumed) > names.index(stage)

    def resumed_part(self, stage: Stage, prefix: str) -> dict[str, Tensor]:
        """Of the checkpoint that the run went on from, if it is of that stage; else nothing."""
        state = self.resumed
        of_it = state is not None and state.numbers["stage"] == stage.name
        return state.part(prefix) if of_it else {}

    def save(self, stage: Stage, optimizer: Any, average: Any) -> None:
        """Write a checkpoint; a full disk costs the checkpoint and not the training."""
        if not self.accelerator.is_main_process or not self.config.checkpointing_steps:
            return
        step = sum(b.step for b in self.budgets.values())
        if not all(t.isfinite().all() for t in self.model.state_dict().values()):
            raise Diverged(step)
        tensors = {"rng.torch": torch.get_rng_state(), "rng.noise": self.noise.get_state()}
        tensors |= checkpoint.named("model", self.model.state_dict())
        tensors |= checkpoint.named("stage", stage.state())
        tensors |= checkpoint.named("optimizer", checkpoint.moments(optimizer))
        if average is not None:
            tensors |= checkpoint.named("average", average.state_dict())
        numbers = {
            "stage": stage.name,
            "data": self.data,
            "prior": self.model.config.prior,
            "budgets": {name: (b.step, b.spent) for name, b in self.budgets.items()},
            "batch_sizes": self.batch_sizes,
            "threads": torch.get_num_threads(),
            "flags": self.config.deciding(),
        }
        try:
            limit = self.config.checkpoints_total_limit
            checkpoint.write(self.folder, step, State(tensors, numbers), limit)
        except OSError as error:
            self.say(f"no checkpoint at step {step}: {error}; training goes on")

    def train(self, stage: Stage, stop: StopOnInterrupt) -> None:
        """Train a stage until its budget is spent or Ctrl-C."""
        config, accelerator, budget = self.config, self.accelerator, stage.budget
        n, module, accumulated = stage.examples(), stage.module, config.gradient_accumulation_steps
        raw, average = self.optimizer(stage)
        prepared, optimizer = accelerator.prepare(
            torch.compile(module) if config.compile else module, raw
        )
        prepared.train()
        if stage.name not in self.batch_sizes:
            self.batch_sizes[stage.name] = self.batch_by_trying(stage, n)
        size = self.batch_sizes[stage.name]
        before = sum(b.step for b in self.budgets.values()) - budget.step
        progress = Progress(size * accumulated, accelerator, budget, before)
        drawn = index_batches(n, size, config.seed)
        for _ in range(budget.step * accumulated):
            next(drawn)
        tenth, looked = math.floor(10 * budget.progress) / 10, budget.spent
        twentieth = math.floor(20 * budget.progress)
        left = module if average is None else average.module
        if state := self.resumed_part(stage, "stage"):
            stage.restore(state)
        else:
            stage.watch(left)
        start, rested = time.perf_counter() - budget.spent, 0.0
        try:
            while budget.progress < 1 and not stop.asked:
                metrics = self.step(stage, prepared, optimizer, drawn)
                if average is not None:
                    average.update_parameters(module)
                budget.step += 1
                self.agree(budget, time.perf_counter() - start, stop)
                done = stop.asked or budget.progress >= 1
                progress.show(budget, metrics, last=done)
                if budget.progress >= (twentieth + 1) / 20 and (done or budget.spent >= rested):
                    twentieth, begun = math.floor(20 * budget.progress), time.perf_counter()
                    stage.watch(left)
                    if budget.seconds:
                        rested = budget.spent + (time.perf_counter() - begun) / WATCHING
                every = config.checkpointing_steps
                if every and (budget.step % every == 0 or done):  # what follows can be killed too
                    self.average_statistics(module)
                    if average is not None:
                        self.average_statistics(average.module)
                    self.save(stage, raw, average)
                due = budget.progress >= tenth + 0.1 and budget.spent >= looked + APART
                if due and not done and accelerator.is_main_process:
                    tenth, looked = math.floor(10 * budget.progress) / 10, budget.spent
                    stage.look(metrics)
            if stop.asked:
                stage.watch(left)  # after the checkpoint, so that what goes on from it is the same
        finally:
            progress.bar.close()
            # accelerate's: no autocast from here on, and anew if the module is trained again.
            for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
                module.__dict__.pop(name, None)
        self.average_statistics(left)
        stage.finish(left.eval())

    def step(
        self, stage: Stage, prepared: Any, optimizer: Any, drawn: Iterator[Tensor]
    ) -> dict[str, Tensor]:
        """One step of the optimizer, by as many batches as are accumulated; numbers of the last."""
        accelerator, metrics = self.accelerator, dict[str, Tensor]()
        for _ in range(self.config.gradient_accumulation_steps):
            index = next(drawn)[accelerator.process_index :: accelerator.num_processes]
            with accelerator.accumulate(prepared):
                loss, metrics = stage.loss(prepared, index)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(stage.module.parameters(), 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = group["pace"] * learning_rate(self.config, stage.budget)
                optimizer.step()
                optimizer.zero_grad()
        return metrics

    def optimizer(self, stage: Stage) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, and the moving average if there is one, as the checkpoint left them."""
        average = None
        if self.config.use_ema:
            average = torch.optim.swa_utils.AveragedModel(
                stage.module, multi_avg_fn=moving_average, use_buffers=True
            )
        paces: dict[float, list[nn.Parameter]] = {}
        for part in stage.module.modules():
            paces.setdefault(getattr(part, "pace", 1.0), []).extend(part.parameters(recurse=False))
        groups = [{"params": some, "pace": pace} for pace, some in paces.items() if some]
        raw = torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.99), fused=True)
        if moments := self.resumed_part(stage, "optimizer"):
            checkpoint.set_moments(raw, moments)
            if average is not None:
                average.load_state_dict(self.resumed_part(stage, "average"))
        return raw, average

    def batch_by_trying(self, stage: Stage, n: int) -> int:
        """Images a step for so many minutes, by how long a few of them take here."""
        trial, noise = copy.deepcopy(stage.module).train(), self.noise.get_state()
        index = torch.arange(SMALLEST_BATCH) % n
        for _ in range(2):  # the first time is not counted: it also sets up the second
            start = time.perf_counter()
            with self.accelerator.autocast():
                loss = stage.loss(trial, index)[0]
            loss.backward()
            loss.item()  # waits for a GPU
        self.noise.set_state(noise)
        rate = torch.tensor(SMALLEST_BATCH / (time.perf_counter() - start), device=self.device)
        rate = self.accelerator.reduce(rate, "sum").item()
        seen = rate * (stage.budget.seconds or 0) / self.config.gradient_accumulation_steps
        size = self.shared(batch_size(n, seen))
        self.say(f"in batches of {size}, at about {rate:.0f} images/s")
        return size

    def shared(self, size: int) -> int:
        """So many images or a few more, of which every process takes as many."""
        return math.ceil(size / self.processes) * self.processes

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


def find_checkpoint(config: TrainConfig) -> State | None:
    """The checkpoint that `resume_from_checkpoint` asks for; None if `latest` finds none.

    Raises:
        FileNotFoundError, HubError: there is none at that place, or it is damaged.
        TrainingError: it is of a run with other flags.
    """
    asked = config.resume_from_checkpoint
    if asked is None:
        return None
    found = checkpoint.existing(config.folder) if asked == "latest" else [expand(asked)]
    if not found:
        return None
    state = checkpoint.read(folder := found[-1])
    then, now = state.numbers["flags"], config.deciding()
    changed = [
        f"--{name} was {then.get(name)} and is {now.get(name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if changed:
        raise TrainingError(
            f"{folder} is of a run with other flags: {'; '.join(changed)}; {OTHERWISE}"
        )
    return state
