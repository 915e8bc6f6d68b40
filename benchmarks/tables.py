"""Write the tables between markers of the documents from the files that they are made of.

    python benchmarks/tables.py

`<!-- table: NAME -->` to `<!-- end -->` holds one of `TABLES`: what benchmarks/results/NAME.json
measured, or what stands in pretrained/, or the flags of train.py.
"""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hfvae.training import TrainConfig

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "benchmarks" / "README.md",
]
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Column(NamedTuple):
    """A number of a row: its key in the JSON, its heading, its format."""

    key: str
    heading: str
    form: str


MEASURED: dict[str, list[Column]] = {
    "quality": [
        Column("parameters", "million weights", ".2f"),
        Column("images/s", "images/s", ".0f"),
        Column("bits_per_dim", "bits/dim", ".2f"),
        Column("spread", "spread", ".2f"),
        Column("psnr", "PSNR, dB", ".1f"),
    ],
    "samples": [Column("fd", "Fréchet distance", ".2f")],
    "training": [
        Column("other", "images/s", ".0f"),
        Column("ours", "hfvae, images/s", ".0f"),
        Column("ratio", "ratio", ".2f"),
    ],
    "mnist": [
        Column("minutes", "minutes", "g"),
        Column("elbo", "ELBO, nats", ".2f"),
        Column("spread", "its spread", ".2f"),
        Column("nll", "−log p(x), nats", ".2f"),
        Column("nll_se", "± s.e.", ".2f"),
        Column("samples", "samples", ".0f"),
        Column("active_units", "active units", ".0f"),
    ],
    "flow": [
        Column("parameters", "weights", ",d"),
        Column("steps", "steps", "d"),
        Column("elbo", "ELBO, nats", ".2f"),
        Column("nll", "−log p(x), nats", ".2f"),
        Column("commit", "commit", ""),
    ],
    "families": [
        Column("bits_per_dim", "bits/dim", ".2f"),
        Column("psnr", "PSNR, dB", ".1f"),
        Column("perplexity", "perplexity", ".0f"),
        Column("codebook_usage", "codes used", ".0%"),
        Column("fd", "Fréchet distance", ".1f"),
        Column("spread", "its spread", ".1f"),
    ],
    "disentanglement": [
        Column("minutes", "minutes", "g"),
        Column("mig", "MIG", ".3f"),
        Column("spread", "its spread", ".3f"),
        Column("sap", "SAP", ".3f"),
        Column("dci_disentanglement", "DCI D", ".3f"),
        Column("dci_completeness", "DCI C", ".3f"),
        Column("factor_vae_score", "FactorVAE", ".2f"),
        Column("psnr", "PSNR, dB", ".1f"),
    ],
    "demo": [
        Column("start_s", "start of app.py, s", ".1f"),
        Column("bare_s", "of an empty one, s", ".1f"),
        Column("usable_s", "page usable, s", ".1f"),
        Column("moving_s", "something moves, s", ".1f"),
        Column("strip", "strip, pictures/s", ".0f"),
        Column("map", "map, pictures/s", ".0f"),
        Column("requests", "requests while moving", ".0f"),
    ],
    "page": [
        Column("usable_s", "usable, s", ".1f"),
        Column("strip", "between two pictures, pictures/s", ".0f"),
        Column("exact", "of them exact", ".0%"),
        Column("decode_ms", "decoding one, ms", ".1f"),
        Column("blocked_ms", "longest block of the page, ms", ".0f"),
    ],
    "avatars": [
        Column("bits_per_dim", "bits/dim", ".2f"),
        Column("psnr", "PSNR, dB", ".1f"),
        Column("fd", "Fréchet distance", ".1f"),
        Column("half_way", "half-way, to the nearest", ".2f"),
        Column("copies", "copies, to the nearest", ".2f"),
        Column("ratio", "ratio", ".2f"),
    ],
    "photographs": [
        Column("parameters", "million weights", ".1f"),
        Column("images/s", "images/s", ".1f"),
        Column("bits_per_dim", "bits/dim", ".2f"),
        Column("psnr", "PSNR, dB", ".1f"),
        Column("ssim", "SSIM", ".3f"),
        Column("peak_gb", "memory, GB", ".1f"),
    ],
    "sliders": [
        Column("own", "pictures whose factor of that name changes", ".0%"),
        Column("others", "another factor", ".0%"),
    ],
    "latent_gaps": [
        Column("distance", "KL(codes ‖ N(0, I)), nats", ".1f"),
        Column("psnr", "PSNR, dB", ".1f"),
    ],
}

BUNDLED = [
    Column("elbo", "test ELBO, nats", ".1f"),
    Column("bits_per_dim", "bits/dim", ".2f"),
    Column("psnr", "PSNR, dB", ".1f"),
    Column("ssim", "SSIM", ".3f"),
    Column("perplexity", "perplexity", ".0f"),
    Column("mig", "MIG", ".3f"),
    Column("mb", "MB", ".1f"),
]


class Number(NamedTuple):
    """One number of a file: a row of a benchmark's results, or a bundled model's evaluation.

    Attributes:
        source: the name of the benchmark or of the model.
        key: of the number.
        form: its format, and its unit.
        row: of the benchmark.
    """

    source: str
    key: str
    form: str
    row: str = ""

    def __str__(self) -> str:
        if self.row:
            (found,) = (row for row in results(self.source)["rows"] if row["name"] == self.row)
        else:
            found = evaluation(self.source)
        return self.form.format(found[self.key])


# What README.md shows: a number and what it is of, and the same of something to compare it with.
HEADLINES: list[tuple[str, Number, str, Number]] = [
    (
        "Fashion-MNIST, held-out images: the bundled VAE",
        Number("fashion-mnist-vae", "bits_per_dim", "{:.2f} bits/dim"),
        "the VQ-VAE with its transformer",
        Number("fashion-mnist-vq-vae", "bits_per_dim", "{:.2f}"),
    ),
    (
        "copies of avatars that the bundled flow-vae never saw",
        Number("avatars-flow-vae", "psnr", "PSNR {:.1f} dB"),
        "what they cost",
        Number("avatars-flow-vae", "bits_per_dim", "{:.2f} bits/dim"),
    ),
    (
        "new clothes by the VQ-VAE, from real ones",
        Number("samples", "fd", "Fréchet distance {:.1f}", "vq-vae, its prior"),
        "other real ones",
        Number("samples", "fd", "{:.2f}", "training images"),
    ),
    (
        "new clothes by the VAE, drawn from its mixture",
        Number("samples", "fd", "Fréchet distance {:.1f}", "vae, mixture"),
        "from N(0, I)",
        Number("samples", "fd", "{:.0f}", "vae, N(0, I)"),
    ),
    (
        "latents of a VAE, how far from N(0, I)",
        Number("latent_gaps", "distance", "KL of {:.1f} nats", "vae"),
        "of an autoencoder with its network",
        Number("latent_gaps", "distance", "{:.1f}", "autoencoder"),
    ),
    (
        "one minute on one core of Fashion-MNIST",
        Number("quality", "bits_per_dim", "{:.2f} bits/dim", "hfvae VAE"),
        "pythae's trainer, the same network",
        Number("quality", "bits_per_dim", "{:.2f}", "pythae VAE, hfvae's network"),
    ),
    (
        "binarized MNIST after ten minutes on two cores, −log p(x) of the flow-vae",
        Number("mnist", "nll", "{:.1f} nats", "flow-vae"),
        "with the prior N(0, I)",
        Number("mnist", "nll", "{:.1f}", "vae"),
    ),
    (
        "factors of sprites told apart by the β-VAE",
        Number("sprites-beta-vae", "mig", "MIG {:.2f}"),
        "FactorVAE score",
        Number("sprites-beta-vae", "factor_vae_score", "{:.2f}"),
    ),
    (
        "images/s in training at 64x64, as a multiple of the bare step of the same network",
        Number("training", "ratio", "{:.2f}", "the bare step, 64x64"),
        "of pythae's trainer, its network at 28x28",
        Number("training", "ratio", "{:.2f}", "pythae's trainer, its network"),
    ),
    (
        "what follows the mouse in the demo, 100 ms away from the server",
        Number("demo", "strip", "{:.0f} pictures/s", "100 ms of latency"),
        "requests meanwhile",
        Number("demo", "requests", "{:.0f}", "100 ms of latency"),
    ),
]


def results(name: str) -> dict[str, Any]:
    """What a benchmark measured."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def evaluation(model: str) -> dict[str, Any]:
    """The numbers of a bundled model, and its size in MB."""
    folder = ROOT / "pretrained" / model
    found = json.loads((folder / "evaluation.json").read_text())
    return found | {"mb": sum(f.stat().st_size for f in folder.iterdir()) / 1e6}


def grid(columns: list[Column], rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown. What no row has, such as the spread of one seed, has no column."""
    columns = [column for column in columns if any(column.key in row for row in rows)]
    lines = [["", *(column.heading for column in columns)], ["---"] * (len(columns) + 1)]
    for row in rows:
        cells = [format(row[c.key], c.form) if c.key in row else "" for c in columns]
        lines.append([row["name"], *cells])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def measured(name: str) -> str:
    """A benchmark's numbers, with what they depend on below them."""
    found = results(name)
    n = found.get("seeds", 1)
    seeds = f"medians of {n} seeds and max − min" if n > 1 else "one seed"
    return (
        f"{grid(MEASURED[name], found['rows'])}\n\n"
        f"*`{found['command']}`; {found['hardware']}, torch {found['torch']}, "
        f"{found['date']}, commit {found['commit']}, {seeds}.*"
    )


def bundled() -> str:
    """The models in pretrained/."""
    names = sorted(path.parent.name for path in ROOT.glob("pretrained/*/evaluation.json"))
    return grid(BUNDLED, [evaluation(name) | {"name": f"`{name}`"} for name in names])


def headlines() -> str:
    lines = [["", "hfvae", "to compare"], ["---"] * 3]
    for words, number, other, compared in HEADLINES:
        lines.append([words, str(number), f"{other}: {compared}"])
    return markdown(lines)


def flags() -> str:
    """The fields of TrainConfig, which are the flags of train.py."""
    lines = [["flag", ""], ["---"] * 2]
    for field in dataclasses.fields(TrainConfig):
        words = field.metadata["help"].replace("<", r"\<").replace("|", r"\|")
        lines.append([f"`--{field.name}`", words])
    return markdown(lines)


TABLES = {name: partial(measured, name) for name in MEASURED}
TABLES |= {"pretrained": bundled, "headlines": headlines, "flags": flags}


def rewritten(text: str) -> str:
    """A document with every table between its markers as the files have it."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(rewritten(path.read_text()))
