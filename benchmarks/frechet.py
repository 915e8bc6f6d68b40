"""How far new images are from real ones, in the features of a small classifier.

The Fréchet distance of Heusel et al. 2017 (arXiv:1706.08500). The classifier is trained here, on
the training images and always from the same seed; a distance compares only with others here.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from hfvae.data import ImageSet

N = 10_000  # images for each distance


class Classifier(nn.Module):
    """Of several factors of images; its features are what the distance is measured in.

    Args:
        shape: (C, H, W) of the images, H and W a multiple of 4.
        counts: how many values each factor has.
    """

    num_features = 64

    def __init__(self, shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, height, width = shape
        self.counts = counts
        self.body = nn.Sequential(
            nn.Conv2d(self.channels, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * height * width, 128), nn.ReLU(), nn.Linear(128, self.num_features),
        )  # fmt: skip
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(self.num_features, sum(counts)))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in uint8 -> features (B, 64)."""
        return self.body(x[:, : self.channels].float() / 255)  # torchmetrics makes grey ones colour

    def told(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of each factor."""
        return self.head(self(x)).split(self.counts, dim=1)

    def learn(self, x: Tensor, labels: Tensor, epochs: int) -> None:
        """Labels are (N, K)."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, fused=True)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(256):
                losses = map(nn.functional.cross_entropy, self.told(x[index]), labels[index].T)
                torch.stack([*losses]).sum().backward()
                optimizer.step()
                optimizer.zero_grad()

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> Tensor:
        """Of each factor, (K,)."""
        right = [t.argmax(1) == v for t, v in zip(self.told(x), labels.T, strict=True)]
        return torch.stack(right).double().mean(1)


class Distance:
    """Measures images against real ones.

    Args:
        known: images in uint8 (N, C, H, W) that the classifier learns from, and their labels.
        real: the same of those that new images are compared with.
        counts: how many values each factor has.
        epochs: looks at every known image.
    """

    def __init__(
        self,
        known: tuple[Tensor, Tensor],
        real: tuple[Tensor, Tensor],
        counts: tuple[int, ...],
        epochs: int,
    ) -> None:
        self.known, self.real = known[0], real[0]
        torch.manual_seed(0)
        self.features = Classifier(self.known.shape[1:], counts)
        self.features.learn(*known, epochs)
        self.accuracies = self.features.accuracy(*real)
        self.features.eval().requires_grad_(False)

    def __call__(self, new: Tensor) -> float:
        fid = FrechetInceptionDistance(self.features, feature_extractor_weights_path=None)
        for images, is_real in ((self.real, True), (new, False)):
            for some in images.split(1000):
                fid.update(some, real=is_real)
        return fid.compute().item()


def clothes(data: str | None) -> Distance:
    """From the test set of Fashion-MNIST, which lies in `data`, or where train.py puts it."""
    from torchvision.datasets import FashionMNIST

    from hfvae.data.cache import CACHE

    train, test = (FashionMNIST(data or CACHE, train=part) for part in (True, False))
    known, real = ((part.data[:, None], part.targets[:, None]) for part in (train, test))
    return Distance(known, real, counts=(10,), epochs=3)


def avatars(known: ImageSet, held_out: ImageSet) -> Distance:
    """From held-out avatars, by the factors of both sets."""
    sets = [(part.pixels.clone(), part.factors) for part in (known, held_out)]
    return Distance(*sets, counts=known.drawn.counts, epochs=8)


def eight_bits(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def drawn(model: Any, n: int = N) -> Tensor:
    """New images from a model's prior, in uint8."""
    noise = torch.Generator().manual_seed(0)
    return torch.cat([eight_bits(model.sample(1000, generator=noise)) for _ in range(0, n, 1000)])
