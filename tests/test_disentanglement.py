"""The scores give their known values on codes that are made up."""

import numpy as np
import pytest
import torch

from hfvae.data.sprites import Sprites
from hfvae.disentanglement import dci, factor_vae_score, information, mig, sap

pytestmark = pytest.mark.quick


class Codes:
    """A data set whose images are its factors, standardized."""

    counts = Sprites.counts

    def draw_factors(self, n, generator):
        return Sprites().draw_factors(n, generator)

    def images(self, factors):
        counts = torch.tensor(self.counts)
        return (factors - (counts - 1) / 2) / ((counts**2 - 1) / 12).sqrt()


def rotation(n=6):
    return torch.linalg.qr(torch.randn(n, n))[0]


@pytest.fixture(scope="module")
def factors():
    return Codes().draw_factors(10_000, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def perfect(factors):
    return Codes().images(factors)


def test_perfect_codes_score_one(factors, perfect):
    z = torch.cat([-perfect[:, [3, 0, 5, 1, 2, 4]], torch.zeros(10_000, 2)], dim=1)
    assert mig(z, factors) == pytest.approx(1, abs=0.01)
    scores = dci(z, factors)
    assert scores["dci_disentanglement"] > 0.99
    assert scores["dci_completeness"] > 0.99
    assert scores["dci_informativeness"] > 0.99
    assert factor_vae_score(lambda x: torch.cat([-x, 0 * x], 1), Codes()) == 1
    # SAP subtracts what guessing gets: the commonest value of each factor.
    guess = np.mean([np.bincount(v).max() / 10_000 for v in factors.T.numpy()])
    assert sap(z, factors) == pytest.approx(1 - guess, abs=0.01)


def test_what_a_latent_tells_of_a_factor(factors, perfect):
    order = [3, 0, 5, 1, 2, 4]
    shares = information(perfect[:, order], factors)
    assert shares.argmax(1).tolist() == [order.index(k) for k in range(6)]
    assert shares.max(1) == pytest.approx(1, abs=0.01)
    # What is left of ten values when only the halves are known: log 2 of log 10, and so on.
    halves = (factors >= torch.tensor(Codes.counts) / 2).double()
    even = [k for k, n in enumerate(Codes.counts) if n % 2 == 0]
    known = [np.log(2) / np.log(Codes.counts[k]) for k in even]
    assert information(halves, factors)[even, even] == pytest.approx(known, abs=0.01)


def test_random_codes_score_zero(factors):
    z = torch.randn(10_000, 8)
    assert mig(z, factors) < 0.01
    assert sap(z, factors) < 0.01
    scores = dci(z, factors)
    assert scores["dci_disentanglement"] < 0.01
    assert scores["dci_completeness"] < 0.01
    chance = np.mean([1 / n for n in Codes.counts])
    assert scores["dci_informativeness"] == pytest.approx(chance, abs=0.02)
    random = factor_vae_score(lambda x: torch.randn(len(x), 8), Codes())
    assert random < 1 / 6 + 5 * (1 / 6 / 200) ** 0.5 + 0.05


def test_rotated_codes_know_everything_and_separate_nothing(factors, perfect):
    torch.manual_seed(0)
    z = perfect @ rotation()
    assert mig(z, factors) < 0.2
    assert sap(z, factors) < 0.2
    scores = dci(z, factors)
    assert scores["dci_disentanglement"] < 0.3
    assert scores["dci_informativeness"] > 0.4


def test_one_factor_in_two_latents_has_no_gap(factors, perfect):
    z = torch.cat([perfect, perfect], dim=1)
    assert mig(z, factors) == pytest.approx(0, abs=1e-6)
    assert sap(z, factors) == pytest.approx(0, abs=1e-6)


def test_factors_that_never_change_do_not_count(factors, perfect):
    still = torch.cat([factors, torch.full((10_000, 1), 3)], dim=1)
    assert mig(perfect, still) == mig(perfect, factors)
    with pytest.raises(ValueError, match="no factor changes"):
        mig(perfect, torch.zeros(10_000, 2, dtype=torch.int64))
