"""A prior that is trained alone, on the latents of a model that is done."""

import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import hfvae
from hfvae.data import ImageSet
from hfvae.priors import Prior
from hfvae.priors.autoregressive import Autoregressive
from hfvae.priors.flow import Flow
from hfvae.training import TrainConfig
from hfvae.training.budget import Budget, make_budgets
from hfvae.training.loop import Run
from hfvae.training.prior import PriorStage, left_aside
from hfvae.training.progress import StopOnInterrupt
from hfvae.training.run import make_accelerator

SPRITES = [
    "--model", "flow-vae", "--dataset", "sprites", "--resolution", 16, "--latent_dim", 4,
    "--max_train_steps", 150, "--train_batch_size", 32, "--widths", "4,8",
]  # fmt: skip


class Watched(PriorStage):
    """Writes down what every look at the latents left aside would have left."""

    def watch(self, module):
        super().watch(module)
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self.seen = [*getattr(self, "seen", []), state]


def learned(tmp_path, n, steps, before=0, **settings):
    """The stage of a transformer that was trained on n images of noise, after so many steps."""
    torch.manual_seed(0)
    model = hfvae.VQVAE(
        hfvae.VQVAEConfig(image_size=16, channels=1, widths=(4,), codebook_size=8)
    ).eval()
    pixels = torch.randint(0, 256, (n, 1, 16, 16), dtype=torch.uint8)
    config = TrainConfig(model="vq-vae", checkpointing_steps=0, output_dir=tmp_path, **settings)
    budgets = {"model": Budget(before, None, step=before), "prior": Budget(steps, None)}
    run = Run(
        config, model, ImageSet("noise", "train", pixels), budgets, {"prior": 8},
        make_accelerator(config), tmp_path,
    )  # fmt: skip
    stage = Watched(run, "autoregressive")
    with StopOnInterrupt() as stop:
        stage.learn(stop)
    return stage


def nats(stage, state):
    """What the latents left aside cost under a prior."""
    stage.module.load_state_dict(state)
    with torch.no_grad():
        return stage.module.eval().nll(stage.aside).mean().item()


def test_a_prior_that_learns_noise_by_heart_is_left_as_it_was_before(tmp_path, capsys):
    stage = learned(tmp_path, 20, 200, learning_rate=0.003)
    left = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    assert len(stage.seen) == 21  # at the start, and at every twentieth of the way
    costs = [nats(stage, state) for state in stage.seen]
    assert costs[-1] > min(costs) + 5  # nats: it did learn them by heart
    assert nats(stage, left) == min(costs)
    assert "of its training: later ones gave less probability" in capsys.readouterr().out


def test_a_prior_that_diverges_is_left_as_it_was_best(tmp_path, capsys, monkeypatch):
    losses, loss = itertools.count(), PriorStage.loss

    def explodes(self, prepared, index):
        nll, metrics = loss(self, prepared, index)
        return (nll, metrics) if next(losses) < 30 else (nll * math.nan, {"rate": nll * math.nan})

    monkeypatch.setattr(PriorStage, "loss", explodes)
    stage = learned(tmp_path, 40, 60)
    left = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    assert all(tensor.isfinite().all() for tensor in left.values())
    costs = [nats(stage, state) for state in stage.seen]  # NaN at the end, if it was looked at
    assert nats(stage, left) == min(cost for cost in costs if math.isfinite(cost))
    assert "the loss is no longer a number after" in capsys.readouterr().out


def test_a_prior_that_comes_to_draw_from_nowhere_is_left_as_it_was_before(tmp_path, monkeypatch):
    looks = itertools.count()

    def strays(self, z):
        assert len(z) == 200  # of few images all tell how far out latents lie
        return 0.0 if next(looks) < 5 else 0.1

    monkeypatch.setattr(Prior, "strays", strays)
    stage = learned(tmp_path, 200, 60, learning_rate=0.003)
    left = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    costs = [nats(stage, state) for state in stage.seen]
    assert nats(stage, left) == min(costs[:5]) > min(costs)


def test_trackers_take_the_steps_of_both_stages_in_one_order(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("accelerate.Accelerator.log", lambda self, values, step: steps.append(step))
    learned(tmp_path, 40, 6, before=100)
    assert steps[-1] == 106
    assert min(steps) > 100


def test_every_process_takes_as_much_of_a_batch():
    assert Run.shared(SimpleNamespace(processes=3), 512) == 513
    assert Run.shared(SimpleNamespace(processes=4), 512) == 512


def test_images_that_judge_a_prior_teach_it_nothing_in_the_mirror_either(tmp_path):
    stage = learned(tmp_path, 40, 1, random_flip=True)
    assert len(stage.kept) == 2 * 37
    assert len(stage.aside) == 2 * 3  # a sixteenth, and its mirror images
    aside = left_aside(40, seed=0)
    both = torch.cat([stage.run.images.pixels[aside], stage.run.images.pixels[aside].flip(3)])
    with torch.no_grad():
        codes = stage.run.model.infer(both.float() / 255).events()
    torch.testing.assert_close(stage.aside, codes)


@pytest.mark.parametrize("n", [2, 16, 17, 5000])
def test_a_sixteenth_is_left_aside_and_never_all(n):
    aside = left_aside(n, seed=1)
    assert aside.shape == (n,)
    assert aside.sum() == min(256, -(-n // 16))
    assert not aside.all()
    assert torch.equal(aside, left_aside(n, seed=1))


def test_a_flow_is_trained_on_when_its_model_is_done(tmp_path, train_py):
    """The model stays what it was, and its latents cost less."""
    found, rates = [], []
    for name, fraction in [("joint", "0"), ("on", "0.8")]:
        out = tmp_path / name
        words = train_py(*SPRITES, "--prior_fraction", fraction, "--output_dir", out)
        assert ("training the prior" in words) == (name == "on")
        found.append(load_file(out / "model.safetensors"))
        rates.append(json.loads((out / "evaluation.json").read_text())["kl"])
    joint, on = found
    same = [name for name in joint if torch.equal(joint[name], on[name])]
    assert {n for n in joint if not n.startswith("prior.")} <= set(same)
    assert not torch.equal(joint["prior.maps"], on["prior.maps"])
    assert rates[1] < rates[0] - 0.2  # nats, on held-out images
    assert "Then its prior: 600 steps" in (tmp_path / "on" / "README.md").read_text()


@pytest.mark.parametrize("budget", [{"max_train_minutes": 1}, {"max_train_steps": 40}])
def test_a_flow_takes_large_batches_and_a_transformer_small_ones(budget):
    """A step of the one is cheap; one of the other takes longer than one of the model."""
    for prior, steps, minutes in [(Flow, 128, 128), (Autoregressive, 32, None)]:
        _, sizes = make_budgets(TrainConfig(**budget), 5000, prior)
        assert sizes.get("prior") == (minutes if "max_train_minutes" in budget else steps)
        budgets, sizes = make_budgets(TrainConfig(**budget, train_batch_size=24), 5000, prior)
        assert sizes == {"model": 24, "prior": 24}
        done = [budgets[stage].seconds or budgets[stage].steps for stage in ("model", "prior")]
        assert done[1] / sum(done) == pytest.approx(prior.share, abs=0.02)
