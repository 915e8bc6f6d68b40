"""Whether the sliders of Explore do what their names say: on new avatars of the bundled model.

    python benchmarks/sliders.py

Each slider goes from one end to the other on 500 new avatars, and a classifier of their factors
tells in how many of them each factor changes. It stands beside sliders without a name, which are
the base's other entries. Of the factors, those count that the classifier knows in nine of ten
held-out avatars. Writes benchmarks/results/sliders.json.
"""

import argparse
import json
import statistics
from typing import Any

import torch
from avatars import BUNDLED
from frechet import avatars, eight_bits
from run import write
from torch import Tensor

import hfvae
from hfvae.data import load_images
from hfvae.demo.explorers import VectorExplorer

PICTURES = 500
KNOWN = 0.9


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    held_out = load_images("avatars", "test")
    distance = avatars(load_images("avatars", "train"), held_out)
    names = [name.replace("_", " ") for name in held_out.drawn.values]
    known = {name: k for k, name in enumerate(names) if distance.accuracies[k] > KNOWN}

    model = hfvae.from_pretrained(BUNDLED)
    measured = json.loads((BUNDLED / "evaluation.json").read_text())
    factors = {name: measured.get(f"latent_{name.replace(' ', '_')}") for name in names}
    explorer = VectorExplorer(model, factors)
    telling = explorer.compared(model.prior)

    @torch.inference_mode()
    def changed(u: Tensor, slider: int) -> dict[str, float]:
        """In what share of the pictures each known factor changes."""
        ends = [u.clone(), u.clone()]
        for end, value in zip(ends, (telling.low, telling.high), strict=True):
            end[:, telling.dims[slider]] = value[slider]
        low, high = (
            distance.features.told(eight_bits(explorer.decoded(end, model.prior))) for end in ends
        )
        differs = {name: low[k].argmax(1) != high[k].argmax(1) for name, k in known.items()}
        return {name: some.double().mean().item() for name, some in differs.items()}

    u = torch.randn(PICTURES, explorer.entries, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, Any]] = []
    unnamed: list[float] = []
    for slider, dim in enumerate(telling.dims):
        shares = changed(u, slider)
        own = [name for name in known if factors[name] == dim]
        if not own:
            unnamed += shares.values()
            continue
        others = [share for name, share in shares.items() if name not in own]
        row = {"name": " · ".join(own), "own": shares[own[0]], "others": statistics.mean(others)}
        rows.append(row)
    if unnamed:
        rows.append({"name": "a slider without a name", "others": statistics.mean(unnamed)})
    write("sliders", "python benchmarks/sliders.py", rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
