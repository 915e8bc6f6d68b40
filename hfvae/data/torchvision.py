"""The data sets that torchvision fetches, by names such as `cifar10`."""

from collections.abc import Iterator, Sequence

from ..errors import expand
from . import cache
from .base import DataError, Request, Source
from .records import Record, Records

SETS = {
    "mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10",
    "cifar100": "CIFAR100", "svhn": "SVHN", "stl10": "STL10", "celeba": "CelebA",
    "flowers102": "Flowers102",
}  # fmt: skip
LICENCES = {"fashion-mnist": "mit", "mnist": "cc-by-sa-3.0"}


class Torchvision(Source):
    names = tuple(SETS)

    def records(self, asked: Request) -> Records:
        from torchvision import datasets

        name = asked.dataset.lower()
        kind, root = getattr(datasets, SETS[name]), expand(asked.data_dir or cache.CACHE)
        arguments = {"split": "train+unlabeled" if name == "stl10" else "train"}
        if asked.split == "test":
            arguments = {"split": "test"}
        if "MNIST" in SETS[name] or "CIFAR" in SETS[name]:
            arguments = {"train": asked.split == "train"}
        try:
            images = kind(str(root), download=True, **arguments)
        except (RuntimeError, OSError) as error:
            raise DataError(f"torchvision cannot fetch {name} into {root}: {error}") from error
        # Its files are fixed by torchvision's checksums.
        identity = f"{SETS[name]} {len(images)} {root}"

        def at(numbers: Sequence[int]) -> Iterator[Record]:
            return ((f"image {i}", images[i][0]) for i in numbers)

        found = Records(len(images), at, identity)
        found.licence = LICENCES.get(name)
        return found
