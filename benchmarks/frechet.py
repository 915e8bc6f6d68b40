"""How far new clothes are from real ones, in the features of a small classifier.

The Fréchet distance of Heusel et al. 2017 (arXiv:1706.08500). The classifier is trained here, on
the training images and always from the same seed; a distance compares only with others here.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

N = 10_000  # images for each distance


class Clothes(nn.Module):
    """A classifier of Fashion-MNIST; its features are what the distance is measured in."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, self.num_features),
        )  # fmt: skip
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(self.num_features, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Grey images (B, 1 or 3, 28, 28) in uint8 -> features (B, 64)."""
        return self.body(x[:, :1].float() / 255)

    def learn(self, x: Tensor, labels: Tensor, epochs: int = 3) -> None:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, fused=True)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(256):
                loss = nn.functional.cross_entropy(self.head(self(x[index])), labels[index])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        return (self.head(self(x)).argmax(1) == labels).double().mean().item()


class Distance:
    """Measures images (N, 1, 28, 28) in uint8 against the test set of Fashion-MNIST.

    Args:
        data: where torchvision's data are; None for where train.py puts them.
    """

    def __init__(self, data: str | None) -> None:
        self.known, labels = labelled_clothes(True, data)
        self.real, real_labels = labelled_clothes(False, data)
        torch.manual_seed(0)
        self.features = Clothes()
        self.features.learn(self.known, labels)
        self.accuracy = self.features.accuracy(self.real, real_labels)
        self.features.eval().requires_grad_(False)

    def __call__(self, new: Tensor) -> float:
        fid = FrechetInceptionDistance(self.features, feature_extractor_weights_path=None)
        for images, is_real in ((self.real, True), (new, False)):
            for some in images.split(1000):
                fid.update(some, real=is_real)
        return fid.compute().item()


def labelled_clothes(train: bool, data: str | None) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import FashionMNIST

    from hfvae.data.cache import CACHE

    found = FashionMNIST(data or CACHE, train=train)
    return found.data[:, None], found.targets


def eight_bits(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def drawn(model: Any, n: int = N) -> Tensor:
    """New images from a model's prior, in uint8."""
    return eight_bits(model.sample(n, generator=torch.Generator().manual_seed(0)))
