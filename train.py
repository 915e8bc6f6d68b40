# /// script
# requires-python = ">=3.10"
# dependencies = []  # hfvae[train] is given with --with, as docs/hub.md shows
# [tool.hf-jobs]
# flavor = "t4-small"
# timeout = "2h"
# secrets = ["HF_TOKEN"]
# ///
"""Train a variational autoencoder, measure it, and save it as a model that anyone can load.

    python train.py                                             # two minutes on built-in sprites
    python train.py --dataset path/to/photos --resolution 64    # any folder of images
    python train.py --dataset fashion-mnist --max_train_minutes 5
    python train.py --dataset owner/name --model beta-vae --beta 8
    python train.py --dataset photos --push_to_hub --hub_model_id me/photos --space_id me/demo
    python train.py --dataset others --model_name_or_path me/photos     # fine-tune
    accelerate launch train.py --dataset celeba                 # many GPUs

The folder that it writes, runs/<dataset>-<model> unless told otherwise, holds the model
(config.json, model.safetensors), its card (README.md), what was measured on held-out images
(evaluation.json) and pictures. Ctrl-C stops early and saves. The same from Python:
hfvae.training.train(hfvae.training.TrainConfig(dataset="photos")).
"""

import sys

import torch

from hfvae.training import TrainingError, train
from hfvae.training.config import parse


def main() -> None:
    try:
        train(parse(sys.argv[1:], __doc__ or ""))
    except (TrainingError, OSError, ValueError) as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except torch.OutOfMemoryError:
        print("train.py: out of memory: lower --train_batch_size or --resolution", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("train.py: stopped for good; what was saved before stays", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
