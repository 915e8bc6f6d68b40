"""Train the models in pretrained/, each by the one command that stands on its card.

    python benchmarks/pretrained.py                      # hours on a CPU core
    python benchmarks/pretrained.py sprites-beta-vae     # one of them

`--data DIR` says where Fashion-MNIST is, as for train.py's --data_dir.
"""

import argparse
import dataclasses

from hfvae.training import train
from hfvae.training.config import parse

# The command of each card. Steps, not minutes: whatever the machine, the same model.
MODELS = {
    "avatars-flow-vae": (
        "--model flow-vae --dataset avatars --latent_dim 64 --widths 24,48,96,192 "
        "--train_batch_size 128 --max_train_steps 8000 --prior_fraction 0.9 --use_ema "
        "--save_fp16"
    ),
    "fashion-mnist-vae": (
        "--dataset fashion-mnist --prior mixture --max_train_steps 14000 --prior_components 50 "
        "--save_fp16"
    ),
    "fashion-mnist-vq-vae": (
        "--model vq-vae --dataset fashion-mnist --codebook_size 256 --train_batch_size 128 "
        "--max_train_steps 5000 --prior_fraction 0.4 --save_fp16"
    ),
    "sprites-beta-vae": (
        "--model beta-vae --dataset sprites --resolution 32 --beta_start 200 --beta 1 "
        "--prior standard-normal --max_train_steps 20000 --save_fp16"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    for name in args.names or MODELS:
        config = dataclasses.replace(
            parse(MODELS[name].split()),
            data_dir=args.data,
            output_dir=f"pretrained/{name}",
            overwrite_output_dir=True,
        )
        train(config)


if __name__ == "__main__":
    main()
