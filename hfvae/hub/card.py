"""The model card: model_card.md filled with what is known about a model."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..configs import Config
from ..priors import prior_class

CARD = "README.md"
# Ends a card, so that one which a person edited can be told, and kept.
SIGNATURE = "\n<!-- Written by hfvae, which replaces this card unless it was edited: {} -->\n"
STUB = "Check out the configuration reference at"  # what the Hub writes into a new Space

# Where hfvae comes from: no release is claimed that is not there.
INSTALL = "pip install -e .  # in a checkout of the hfvae repository"


class Metric(NamedTuple):
    """How a number of evaluation.json is shown."""

    name: str
    unit: str


METRICS = {
    "elbo": Metric("ELBO, a lower bound on log p(x)", "nats/image"),
    "reconstruction": Metric("reconstruction, −log p(x\\|z)", "nats/image"),
    "kl": Metric("KL(q(z\\|x) ‖ p(z))", "nats/image"),
    "nll": Metric("−log p(x), importance-sampled", "nats/image"),
    "bits_per_dim": Metric("−ELBO", "bits/dim"),
    "nll_bits_per_dim": Metric("−log p(x), importance-sampled", "bits/dim"),
    "active_units": Metric("active units", "latents; of a grid, channels"),
    "perplexity": Metric("codebook perplexity", "codes"),
    "codebook_usage": Metric("share of the codebook used", ""),
    "psnr": Metric("PSNR of the reconstruction", "dB"),
    "ssim": Metric("SSIM of the reconstruction", ""),
    "mig": Metric("MIG", ""),
    "sap": Metric("SAP", ""),
    "dci_disentanglement": Metric("DCI disentanglement", ""),
    "dci_completeness": Metric("DCI completeness", ""),
    "dci_informativeness": Metric("DCI informativeness", "accuracy"),
    "factor_vae_score": Metric("FactorVAE score", "accuracy"),
}


def resource(name: str) -> Path:
    """A file of the repository's top level, in a checkout or in an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "resources" / name
    return inside if inside.exists() else package.parent / name


def sign(card: str) -> str:
    """A card with a last line by which `is_edited` knows it again."""
    return card + SIGNATURE.format(hashlib.sha256(card.encode()).hexdigest())


def is_edited(card: str) -> bool:
    """Whether a card is other than `sign` left it, or the Hub when it made the repository."""
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).strip()
    if not body or body.startswith(STUB):
        return False
    text, mark, _ = card.rpartition(SIGNATURE.partition("{}")[0])
    return not mark or card != sign(text)


def addressed(card: str, repo: str) -> str:
    """A card whose snippet loads `repo`; one that was edited stays as it is."""
    if is_edited(card):
        return card
    text = card.rpartition(SIGNATURE.partition("{}")[0])[0]
    return sign(re.sub(r'from_pretrained\("[^"]*"', f'from_pretrained("{repo}"', text))


def render_card(
    config: Config,
    *,
    name: str,
    repo: str | None = None,
    results: dict[str, Any] | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    credit: str = "",
    base_model: str | None = None,
    pictures: bool = False,
    custom_parts: Sequence[str] = (),
    training: dict[str, str] | None = None,
) -> str:
    """The card's text.

    Args:
        config: of the model.
        name: its title.
        repo: what from_pretrained takes in the snippet; the name if None.
        results: evaluation.json.
        dataset: what it was trained on; owner/name is a Hub data set.
        licence: of these data.
        credit: sentences on where they are from.
        base_model: the Hub id of the model that it was fine-tuned from.
        pictures: whether samples.png and reconstructions.png lie beside the card.
        custom_parts: "encoder" or "decoder", where the model has its own.
        training: `summary`, a sentence with steps, time and hardware, and `command`.
    """
    from huggingface_hub import ModelCard

    numbers = {key: results[key] for key in METRICS if key in results} if results else {}
    split = results["split"] if results else None
    data = _metadata(config, name, numbers, dataset, split, licence, base_model)
    settings, prior = config.settings(), prior_class(config.prior)
    rows = [
        {
            "name": METRICS[key].name,
            "value": f"{value:.4g}" if abs(value) < 100 else f"{value:.1f}",
            "unit": METRICS[key].unit,
        }
        for key, value in numbers.items()
    ]
    h, w = config.size
    card = ModelCard.from_template(
        data,
        template_path=str(resource("model_card.md")),
        name=name,
        repo=repo or name,
        samples=prior.samples and config.channels in (1, 3, 4),
        parts="".join(f", {part}={part}" for part in custom_parts),
        description=f"{config.words} of {h}x{w} images"
        + (f", trained on {dataset}" if dataset else "")
        + (
            f", fine-tuned from [{base_model}](https://huggingface.co/{base_model})."
            if base_model
            else "."
        ),
        install=INSTALL,
        shape=f"(B, {config.channels}, {h}, {w})",
        size=f"an image size of {h}x{w}, {config.channels} channel{'s' * (config.channels > 1)}",
        likelihood=config.likelihood,
        beta=settings.get("beta"),
        prior_words=prior.words,
        settings=settings,
        pictures=pictures,
        results=results,
        rows=rows,
        training=training,
        data_licence=licence,
        credit=credit,
    )
    return sign(str(card))


def _metadata(
    config: Config,
    name: str,
    numbers: dict[str, float],
    dataset: str | None,
    split: str | None,
    licence: str | None,
    base_model: str | None,
) -> Any:
    """What the Hub reads of a card; see `render_card`."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "unconditional-image-generation"
    measured = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w./-]+", "-", dataset or "unknown", flags=re.ASCII),
            dataset_name=dataset or "unknown",
            dataset_split=split,
            metric_type=key,
            metric_name=f"{METRICS[key].name} ({METRICS[key].unit or '0 to 1'})".replace("\\", ""),
            metric_value=round(value, 4),
        )
        for key, value in numbers.items()
    ]
    return ModelCardData(
        license=licence or "unknown",
        library_name="hfvae",
        pipeline_tag=task,
        tags=["vae", "image-generation", config.model_type],
        datasets=[dataset] if dataset and "/" in dataset else None,
        base_model=base_model,
        model_name=name,
        eval_results=measured or None,
    )
