"""Models that ask for more of a machine than their files let one think."""

import torch

import hfvae


def save_cheaply(config, folder):
    """A model of that config whose weights are all zero: its file is large, and compresses."""
    with torch.device("meta"):
        model = hfvae.models.FAMILIES[config.model_type](config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.to(torch.float16).save_pretrained(folder)


COSTLY = {
    "codes": ({"image_size": 64, "widths": (8,), "blocks": 0, "codebook_size": 65536,
               "embedding_dim": 512}, "billion multiplications an image"),
    "layers": ({"image_size": 64, "widths": (8,), "blocks": 0, "codebook_size": 16,
                "embedding_dim": 4, "prior": "autoregressive", "prior_width": 8,
                "prior_layers": 64}, "billion multiplications an image"),
    "blocks": ({"image_size": 512, "widths": (16, 32, 64, 128), "blocks": 64,
                "codebook_size": 16}, "billion multiplications an image"),
    "wide": ({"image_size": 512, "widths": (256, 8, 8, 8, 8), "blocks": 0, "codebook_size": 16},
             "million numbers an image"),
}  # fmt: skip
# The dearest that the demo takes from a visitor.
DEAR = hfvae.VAEConfig(spatial=True, image_size=512)
