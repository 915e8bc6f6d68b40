"""Write the tables of README.md from the JSON files that measured them.

python benchmarks/tables.py
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# The columns of each table: key in the JSON, heading, format.
COLUMNS = {
    "pretrained": [
        ("elbo", "test ELBO, nats", ".1f"),
        ("bits_per_dim", "bits/dim", ".2f"),
        ("psnr", "PSNR, dB", ".1f"),
        ("ssim", "SSIM", ".3f"),
        ("perplexity", "perplexity", ".0f"),
        ("mig", "MIG", ".3f"),
        ("mb", "MB", ".1f"),
    ],
    "quality": [
        ("parameters", "million weights", ".2f"),
        ("images/s", "images/s", ".0f"),
        ("bits_per_dim", "bits/dim", ".2f"),
        ("spread", "spread", ".2f"),
        ("psnr", "PSNR, dB", ".1f"),
    ],
    "samples": [("fd", "Fréchet distance", ".2f")],
    "samples_emoji": [("nearest", "distance to the nearest in training", ".3f")],
    "designs": [
        ("mnist", "MNIST, −ELBO, nats", ".1f"),
        ("mnist steps", "steps", "d"),
        ("fashion-mnist", "Fashion-MNIST, −ELBO, nats", ".0f"),
        ("fashion-mnist steps", "steps", "d"),
    ],
    "training": [
        ("other", "images/s", ".0f"),
        ("ours", "hfvae, images/s", ".0f"),
        ("ratio", "ratio", ".2f"),
    ],
    "race": [
        ("minutes", "minutes", ".2g"),
        ("neg_elbo", "test −ELBO, nats", ".1f"),
    ],
    "loading": [
        ("loaded_s", "imported and loaded, s", ".2f"),
        ("first_s", "first image, s", ".2f"),
        ("mb", "MB on disk", ".1f"),
    ],
    "large_folder": [
        ("first_step_s", "first step after, s", ".1f"),
        ("peak_gib", "peak memory, GiB", ".2f"),
    ],
    "mnist": [
        ("minutes", "minutes", "g"),
        ("elbo", "ELBO, nats", ".2f"),
        ("spread", "its spread", ".2f"),
        ("nll", "−log p(x), nats", ".2f"),
        ("nll_se", "± s.e.", ".2f"),
        ("samples", "samples", ".0f"),
        ("active_units", "active units", ".0f"),
    ],
    "families": [
        ("bits_per_dim", "bits/dim", ".2f"),
        ("psnr", "PSNR, dB", ".1f"),
        ("perplexity", "perplexity", ".0f"),
        ("codebook_usage", "codes used", ".0%"),
        ("fd", "Fréchet distance", ".1f"),
        ("spread", "its spread", ".1f"),
    ],
    "disentanglement": [
        ("minutes", "minutes", "g"),
        ("mig", "MIG", ".3f"),
        ("spread", "its spread", ".3f"),
        ("sap", "SAP", ".3f"),
        ("dci_disentanglement", "DCI D", ".3f"),
        ("dci_completeness", "DCI C", ".3f"),
        ("factor_vae_score", "FactorVAE", ".2f"),
        ("psnr", "PSNR, dB", ".1f"),
    ],
    "demo": [
        ("start_s", "start of app.py, s", ".1f"),
        ("bare_s", "of an empty one, s", ".1f"),
        ("usable_s", "page usable, s", ".1f"),
        ("moving_s", "something moves, s", ".1f"),
        ("strip", "strip, pictures/s", ".0f"),
        ("map", "map, pictures/s", ".0f"),
        ("requests", "requests while moving", ".0f"),
    ],
    "fine_tuning": [
        ("scratch", "from scratch, bits/dim", ".3f"),
        ("tuned", "fine-tuned, bits/dim", ".3f"),
    ],
    "latent_gaps": [
        ("distance", "KL(codes ‖ N(0, I)), nats", ".1f"),
        ("psnr", "PSNR, dB", ".1f"),
    ],
}


def table(name: str) -> str:
    """One table in Markdown, with what it depends on below it."""
    rows, note = read(name)
    # What no row has, such as the spread of one seed, has no column.
    columns = [column for column in COLUMNS[name] if any(column[0] in row for row in rows)]
    lines = [
        "| | " + " | ".join(heading for _, heading, _ in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in rows:
        cells = [format(row[key], form) if key in row else "" for key, _, form in columns]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + (f"\n\n{note}" if note else "")


def read(name: str) -> tuple[list[dict[str, Any]], str]:
    if name == "pretrained":
        folders = sorted(path.parent for path in ROOT.glob("pretrained/*/evaluation.json"))
        return [
            json.loads((folder / "evaluation.json").read_text())
            | {
                "name": f"`{folder.name}`",
                "mb": sum(f.stat().st_size for f in folder.iterdir()) / 1e6,
            }
            for folder in folders
        ], ""
    measured = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    n = measured.get("seeds", 1)
    seeds = f"medians of {n} seeds and max − min" if n > 1 else "one seed"
    note = (
        f"*`{measured['command']}`; {measured['hardware']}, torch {measured['torch']}, "
        f"{measured['date']}, commit {measured['commit']}, {seeds}.*"
    )
    return measured["rows"], note


def rewritten(readme: str) -> str:
    """The README with every table between its markers as the files have it."""
    for name in COLUMNS:
        start, end = f"<!-- table: {name} -->\n", "\n<!-- end -->"
        before, rest = readme.split(start, 1)  # a missing marker is an error
        readme = before + start + table(name) + end + rest.split(end, 1)[1]
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))
