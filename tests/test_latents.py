import math

import pytest
import torch

from hfvae import VQVAE, VQVAEConfig
from hfvae import functional as F
from hfvae.configs import fsq_levels
from hfvae.latents import FiniteScalarQuantizer, Gaussian, VectorQuantizer

pytestmark = pytest.mark.quick


GRID = (3, 5)


@pytest.fixture
def h():
    """Encoder outputs (B, D, h, w)."""
    return torch.randn(6, 4, 3, 5, requires_grad=True)


def test_codes_are_those_of_brute_force(h):
    quantizer = VectorQuantizer(4, GRID, 32, 0.25)
    codes = quantizer.codes(h)
    for b, y, x in [(0, 0, 0), (3, 2, 4), (5, 1, 2)]:
        distances = [(h[b, :, y, x] - e).norm().item() for e in quantizer.codebook]
        assert codes[b, y, x] == min(range(32), key=distances.__getitem__)
    assert torch.equal(quantizer.lookup(codes)[2, :, 1, 3], quantizer.codebook[codes[2, 1, 3]])


def test_the_gradient_of_the_decoder_passes_straight_to_the_encoder():
    z, z_q = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    out = F.straight_through(z, z_q)
    torch.testing.assert_close(out, z_q)
    out.square().sum().backward()
    torch.testing.assert_close(z.grad, 2 * z_q.detach())
    assert z_q.grad is None


def test_commitment_moves_only_the_encoder_and_the_codebook_term_only_the_codebook(h):
    quantizer = VectorQuantizer(4, GRID, 8, commitment=0.25, ema_decay=0)
    z_q = quantizer.lookup(quantizer.codes(h))
    F.commitment_term(h, z_q).sum().backward()
    torch.testing.assert_close(h.grad, 2 * (h - z_q).detach())
    assert quantizer.codebook.grad is None
    h.grad = None
    z_q = quantizer.lookup(quantizer.codes(h))
    F.codebook_term(h, z_q).sum().backward()
    assert h.grad is None
    expected = torch.zeros(8, 4)
    gradient = (2 * (z_q - h)).detach().movedim(1, -1).reshape(-1, 4)
    expected.index_add_(0, quantizer.codes(h).flatten(), gradient)
    torch.testing.assert_close(quantizer.codebook.grad, expected)


def test_the_penalty_weighs_commitment_by_its_weight_and_the_codebook_by_one(h):
    for decay, weight in [(0.0, 1.25), (0.9, 0.25)]:
        quantizer = VectorQuantizer(4, GRID, 8, commitment=0.25, ema_decay=decay).eval()
        latent = quantizer(h)
        z_q = quantizer.lookup(quantizer.codes(h))
        squared = (h - z_q).square().flatten(1).sum(1)
        torch.testing.assert_close(latent.penalty(), weight * squared)
        torch.testing.assert_close(latent.metrics(squared)["commitment"], squared.mean())


def test_commitment_does_not_depend_on_the_batch_size(h):
    quantizer = VectorQuantizer(4, GRID, 8, commitment=0.25).eval()
    together = quantizer(h).penalty()
    alone = torch.cat([quantizer(h[i : i + 1]).penalty() for i in range(len(h))])
    torch.testing.assert_close(together, alone)
    many = quantizer(h.repeat(5, 1, 1, 1)).metrics(None)["commitment"]
    torch.testing.assert_close(many, quantizer(h).metrics(None)["commitment"])


def test_a_step_of_the_moving_averages_by_hand():
    """Two codes, γ = ¾: the first takes (1, 1) and (3, 1), the second nothing."""
    quantizer = VectorQuantizer(2, (1, 2), 2, commitment=0.25, ema_decay=0.75)
    quantizer.codebook.copy_(torch.tensor([[2.0, 0.0], [-9.0, 0.0]]))
    quantizer.ema_sums.copy_(quantizer.codebook)
    h = torch.tensor([[1.0, 1.0], [3.0, 1.0]]).T.view(1, 2, 1, 2)
    quantizer.train()(h)
    torch.testing.assert_close(quantizer.ema_counts, torch.tensor([0.75 + 0.25 * 2, 0.75]))
    moved = torch.tensor([0.75 * 2 + 0.25 * 4, 0.25 * 2]) / 1.25
    torch.testing.assert_close(quantizer.codebook, torch.stack([moved, torch.tensor([-9.0, 0.0])]))


def test_unused_codes_stay_finite_and_in_eval_mode_nothing_moves(h):
    quantizer = VectorQuantizer(4, GRID, 64, 0.25, ema_decay=0.99).train()
    before = quantizer.codebook.clone()
    quantizer(h)
    assert quantizer.codebook.norm(dim=1).max() < 10
    assert not torch.equal(before, quantizer.codebook)
    before = quantizer.eval().codebook.clone()
    quantizer(h)
    assert torch.equal(before, quantizer.codebook)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_dead_codes_are_moved_onto_encoder_outputs(h, decay, generator):
    quantizer = VectorQuantizer(4, GRID, 16, 0.25, ema_decay=decay).train()
    with torch.no_grad():
        quantizer.codebook[1:] += 1000  # only code 0 can win
        if decay:
            quantizer.ema_sums.copy_(quantizer.codebook)
    for _ in range(400):
        quantizer(h.detach(), generator())
    vectors = h.detach().movedim(1, -1).reshape(-1, 4)
    assert quantizer.codebook.detach().norm(dim=1).max() <= vectors.norm(dim=1).max() + 1e-4
    assert len(quantizer.codes(h).unique()) > 8


def test_perplexity_of_known_counts_and_over_a_set():
    assert F.perplexity(torch.ones(8)).item() == pytest.approx(8)
    assert F.perplexity(torch.tensor([5.0, 0, 0])).item() == pytest.approx(1)
    # Two batches of one code each are two codes over the set.
    first, second = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    assert F.perplexity(first + second).item() == pytest.approx(2)


def test_a_single_image_tells_nothing_of_active_units():
    latents = Gaussian(3)
    assert latents.summary([torch.ones(1, 3)]) == {}
    assert latents.summary([torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 2.05]])]) == {
        "active_units": 1
    }


@pytest.mark.parametrize(
    ("size", "levels"), [(8, (8,)), (256, (8, 8, 4)), (240, (8, 6, 5)), (1000, (8, 5, 5, 5))]
)
def test_fsq_levels_multiply_to_the_codebook(size, levels):
    assert math.prod(fsq_levels(size)) == size
    assert len(fsq_levels(size)) == len(levels)
    with pytest.raises(ValueError, match="product of numbers from 3 to 8"):
        fsq_levels(11 * size)


def test_fsq_codes_are_the_digits_of_their_values():
    quantizer = FiniteScalarQuantizer((8, 6, 5), (240, 1))
    every = torch.arange(240).view(1, 240, 1)
    values = quantizer.lookup(every)
    assert len(values[0, :, :, 0].T.unique(dim=0)) == 240
    # Far inside each bin of the sigmoid, so that rounding returns the code.
    logits = torch.logit(((values.movedim(1, -1) + 1) / 2 * (quantizer.levels - 1) + 0.5)
                         / quantizer.levels).movedim(-1, 1)  # fmt: skip
    assert torch.equal(quantizer.codes(logits), every)
    torch.testing.assert_close(quantizer(logits).z, values)


def test_fsq_uses_its_levels_alike_and_passes_gradients():
    quantizer = FiniteScalarQuantizer((5, 4), (1, 1))
    u = torch.rand(20_000, 2, 1, 1).clamp(1e-6, 1 - 1e-6)
    h = torch.logit(u).requires_grad_()
    latent = quantizer(h)
    assert latent.perplexity > 19.9
    latent.z.sum().backward()
    slope = 2 * u * (1 - u) * (quantizer.levels / (quantizer.levels - 1)).view(1, 2, 1, 1)
    torch.testing.assert_close(h.grad, slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_codes_and_images_go_both_ways(quantizer):
    config = VQVAEConfig(image_size=(12, 18), channels=1, codebook_size=12, quantizer=quantizer)
    model = VQVAE(config).eval()
    x = torch.randint(0, 256, (3, 1, 12, 18)) / 255
    codes = model.codes(x)
    assert codes.dtype == torch.int64
    assert codes.shape == (3, *model.latent_shape[1:])
    torch.testing.assert_close(model.decode_codes(codes), model.reconstruct(x))
    torch.testing.assert_close(model.bottleneck.lookup(codes), model.encode(x))
    for bad, words in [(codes[:, :1], "codes of shape"), (codes + 12, "from 0 to 11")]:
        with pytest.raises(ValueError, match=words):
            model.decode_codes(bad)


def test_traversing_a_code_changes_that_cell():
    model = VQVAE(VQVAEConfig(image_size=16, channels=1, codebook_size=12)).eval()
    x = torch.rand(1, 16, 16)
    codes = model.codes(x[None])
    images = model.traverse(x, dim=3, values=[0, int(codes.flatten()[3]), 11])
    torch.testing.assert_close(images[1:2], model.decode_codes(codes))
    changed = codes.clone()
    changed.view(-1)[3] = 11
    torch.testing.assert_close(images[2:], model.decode_codes(changed))


def test_a_code_used_less_than_a_tenth_of_the_average_is_moved(generator):
    q = VectorQuantizer(2, (1, 1), 4, 0.25)
    q.ema_counts.copy_(torch.tensor([36.9, 1.1, 0.9, 1.1]))  # 10 on average
    before = q.codebook.clone()
    q.revive(torch.full((5, 2), 7.0), generator())
    assert torch.equal(q.codebook[2], torch.full((2,), 7.0))
    assert torch.equal(q.codebook[[0, 1, 3]], before[[0, 1, 3]])
