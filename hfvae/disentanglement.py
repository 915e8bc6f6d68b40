"""How well single latents stand for single factors of the images, as the papers define it.

Latents z are float (N, D); factors are int64 (N, K) over finite values. Every score lies in [0, 1].
Factors that never change in a sample are left out.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .data.drawn import Drawn

SPREAD = 2000  # images that tell how a latent varies over all of them
BINS = 20  # Locatello et al. 2019 (arXiv:1811.12359), appendix C: histograms of 20 bins


def mig(z: Tensor, factors: Tensor) -> float:
    """Mutual information gap: Chen et al. 2018 (arXiv:1802.04942), eq. 6.

    The mean over factors v of (I(z₁; v) − I(z₂; v)) / H(v), z₁ and z₂ the two latents that tell
    most about v, latents discretized into 20 bins of equal width.
    """
    changing = torch.from_numpy(_changing(factors))
    shares = np.pad(information(z, changing), ((0, 0), (1, 0)))  # one latent alone: a gap to none
    largest = np.sort(shares, axis=1)
    return float((largest[:, -1] - largest[:, -2]).mean())


def information(z: Tensor, factors: Tensor) -> np.ndarray:
    """I(z_j; v_k) / H(v_k), (K, D): what share of a factor each latent tells, 0 if it is fixed."""
    from sklearn.metrics import mutual_info_score

    codes = _binned(z)
    rows = []
    for v in factors.cpu().numpy().T:
        entropy = max(mutual_info_score(v, v), 1e-12)
        rows.append([mutual_info_score(v, c) / entropy for c in codes.T])
    return np.array(rows)


def sap(z: Tensor, factors: Tensor, seed: int = 0) -> float:
    """Separated attribute predictability: Kumar et al. 2018 (arXiv:1711.00848), section 3.1.

    The mean over factors of the gap between the two latents from which thresholds on that latent
    alone (linear discriminants) tell the factor best: accuracy on the half of the sample that they
    did not see. Perfect latents score one minus the accuracy of guessing.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    train, test = _halves(len(z), seed)
    latents, values = _standardized(z), _changing(factors)
    gaps = []
    for v in values.T:
        scores = []
        for latent in latents.T:
            if latent.std() == 0:
                scores.append(np.bincount(v[test]).max() / len(test))
                continue
            fit = LinearDiscriminantAnalysis().fit(latent[train, None], v[train])
            scores.append(fit.score(latent[test, None], v[test]))
        best = sorted(scores)[::-1]
        gaps.append(best[0] - best[1] if len(best) > 1 else best[0])
    return float(np.mean(gaps))


def dci(z: Tensor, factors: Tensor, seed: int = 0) -> dict[str, float]:
    """Disentanglement, completeness, informativeness: Eastwood & Williams 2018 (ICLR), section 2.

    From the importances R (D, K) of latents for predicting factors by random forests: a latent is
    disentangled as far as its row of R is concentrated, a factor complete as far as its column is;
    informativeness is the accuracy on the half of the sample that the forests did not see.
    """
    from sklearn.ensemble import RandomForestClassifier

    train, test = _halves(len(z), seed)
    latents, values = _standardized(z), _changing(factors)
    importance, accuracy = [], []
    for v in values.T:
        forest = RandomForestClassifier(
            30, max_features=None, min_samples_leaf=5, n_jobs=-1, random_state=seed
        )
        forest.fit(latents[train], v[train])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(latents[test], v[test]))
    r = np.stack(importance, axis=1)
    weight = r.sum(axis=1) / r.sum()
    return {
        "dci_disentanglement": float((weight * _concentration(r)).sum()),
        "dci_completeness": float((r.sum(axis=0) / r.sum() * _concentration(r.T)).sum()),
        "dci_informativeness": float(np.mean(accuracy)),
    }


def factor_vae_score(
    encode: Callable[[Tensor], Tensor],
    dataset: "Drawn",
    generator: torch.Generator | None = None,
    votes: int = 800,
    batch: int = 32,
) -> float:
    """Kim & Mnih 2018 (arXiv:1802.05983), section 4: accuracy of a majority vote.

    For every vote one factor is held fixed, a batch drawn, and the latent that varies least in it,
    compared with how it varies over all images, votes for that factor. Latents that hardly vary at
    all do not vote. A quarter as many fresh votes measure the accuracy.

    Args:
        encode: images (B, C, H, W) in [0, 1] -> latents (B, D).
        dataset: draws images for any factors, see `hfvae.data.drawn.Drawn`.
        generator: of the factors.
        votes: how many to learn from.
        batch: images for each vote.
    """
    generator = generator or torch.Generator().manual_seed(0)
    spread = encode(dataset.images(dataset.draw_factors(SPREAD, generator))).var(dim=0)
    votes_of = torch.arange(len(dataset.counts)).repeat(votes // len(dataset.counts) + 1)
    active = spread.sqrt() > 0.05  # as in Locatello et al. 2019
    if not active.any():
        return 0.0

    def vote(factor: int) -> int:
        factors = dataset.draw_factors(batch, generator)
        factors[:, factor] = factors[0, factor]
        varies = encode(dataset.images(factors)).var(dim=0) / spread
        return int(torch.where(active, varies, torch.inf).argmin())

    table = torch.zeros(len(spread), len(dataset.counts))
    for factor in votes_of[:votes].tolist():
        table[vote(factor), factor] += 1
    winner = table.argmax(dim=1)
    fresh = votes_of[: votes // 4].tolist()
    return sum(int(winner[vote(factor)]) == factor for factor in fresh) / len(fresh)


def _binned(z: Tensor) -> np.ndarray:
    latents = z.double().cpu().numpy()
    edges = [np.histogram_bin_edges(latent, BINS)[1:-1] for latent in latents.T]
    return np.stack([np.digitize(c, e) for c, e in zip(latents.T, edges, strict=True)], axis=1)


def _standardized(z: Tensor) -> np.ndarray:
    latents = z.double().cpu().numpy()
    spread = latents.std(axis=0)
    return (latents - latents.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _changing(factors: Tensor) -> np.ndarray:
    values = factors.cpu().numpy()
    values = values[:, (values != values[:1]).any(axis=0)]
    if not values.shape[1]:
        raise ValueError("no factor changes in this sample")
    return values


def _halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _concentration(r: np.ndarray) -> np.ndarray:
    """1 − the entropy of each row, in units of the largest one: 1 if all in one place."""
    if r.shape[1] == 1:
        return np.ones(len(r))
    p = r / np.maximum(r.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
    return 1 - entropy / np.log(r.shape[1])
