"""How long a saved model takes to load, and to draw its first image, beside the peers.

    python benchmarks/loading.py

Every measurement is a fresh process, imports included, and they take turns; medians. All three
models are small ones for images of 28x28 (diffusers: 64x64), new and untrained. AutoencoderKL has
no prior to sample from: its first image is decoded from N(0, I). Writes
benchmarks/results/loading.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE.parent / "runs" / "benchmarks" / "loading"
ROUNDS = 7


def save(peer: str) -> None:
    import peers

    if peer == "hfvae":
        from hfvae import VAE, VAEConfig

        VAE(VAEConfig(image_size=28, channels=1)).save_pretrained(FOLDER / peer)
    elif peer == "pythae":
        peers.pythae_model().save(str(FOLDER / peer))
    else:
        peers.diffusers_model().save_pretrained(FOLDER / peer)


def load(peer: str) -> dict[str, float]:
    """Nothing is imported before the clock starts."""
    start = time.perf_counter()
    draw: Any
    if peer == "hfvae":
        import hfvae

        model = hfvae.from_pretrained(FOLDER / peer)
        draw = lambda: model.sample(1)  # noqa: E731
    elif peer == "pythae":
        import torch
        from pythae.models import AutoModel

        model = AutoModel.load_from_folder(str(FOLDER / peer)).eval()
        draw = lambda: model.decoder(torch.randn(1, 32)).reconstruction  # noqa: E731
    else:
        import torch
        from diffusers import AutoencoderKL

        model = AutoencoderKL.from_pretrained(FOLDER / peer)
        draw = lambda: model.decode(torch.randn(1, 4, 16, 16)).sample  # noqa: E731
    loaded = time.perf_counter() - start
    draw()
    return {"loaded_s": loaded, "first_s": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", metavar="PEER", help=argparse.SUPPRESS)
    parser.add_argument("--load", metavar="PEER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.save or args.load:
        print(json.dumps(save(args.save) if args.save else load(args.load)))
        return
    import peers
    from run import surroundings

    peers.install()
    names = ("hfvae", "pythae", "diffusers")
    for name in names:
        peers.worker(__file__, "--save", name)
    rounds = [[peers.worker(__file__, "--load", name) for name in names] for _ in range(ROUNDS)]
    rows = [
        {"name": name}
        | {key: statistics.median(r[i][key] for r in rounds) for key in ("loaded_s", "first_s")}
        | {"mb": size(FOLDER / name) / 1e6}
        for i, name in enumerate(names)
    ]
    measured = {"command": "python benchmarks/loading.py", **surroundings(), "rows": rows}
    (HERE / "results" / "loading.json").write_text(json.dumps(measured, indent=2) + "\n")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
