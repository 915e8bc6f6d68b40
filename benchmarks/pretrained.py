"""Train the models in pretrained/, each by the one command that stands on its card.

    python benchmarks/pretrained.py --emoji DIR          # three hours on a CPU core
    python benchmarks/pretrained.py sprites-beta-vae     # one of them

`--data DIR` says where Fashion-MNIST is, as for train.py's --data_dir; `--emoji DIR` where the
emoji of googlefonts/noto-emoji are, as 64x64 pixels on white. The bundled model was trained on a
parquet file whose test split has no emoji of the train split in another skin tone.
"""

import argparse
import dataclasses

from hfvae.training import train
from hfvae.training.config import parse

# The command of each card. Steps, not minutes: whatever the machine, the same model.
MODELS = {
    "emoji-vae": (
        "--dataset noto-emoji --license ofl-1.1 --resolution 64 --latent_dim 48 "
        "--widths 16,32,96,160 --prior mixture --prior_components 200 --random_flip "
        "--max_train_steps 15000 --save_fp16"
    ),
    "fashion-mnist-vae": (
        "--dataset fashion-mnist --prior mixture --max_train_steps 14000 --prior_components 50 "
        "--save_fp16"
    ),
    "fashion-mnist-vq-vae": (
        "--model vq-vae --dataset fashion-mnist --codebook_size 256 --max_train_steps 5000 "
        "--prior_fraction 0.4 --save_fp16"
    ),
    "sprites-beta-vae": (
        "--model beta-vae --dataset sprites --resolution 32 --beta_start 200 --beta 1 "
        "--max_train_steps 20000 --save_fp16"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--data", help="where torchvision's data are")
    parser.add_argument("--emoji", help="where the emoji are")
    args = parser.parse_args()
    names = args.names or list(MODELS)
    if "emoji-vae" in names and not args.emoji:
        parser.error("emoji-vae needs --emoji DIR")
    for name in names:
        config = dataclasses.replace(
            parse(MODELS[name].split()),
            data_dir=args.data,
            output_dir=f"pretrained/{name}",
            overwrite_output_dir=True,
        )
        if name == "emoji-vae":
            config = dataclasses.replace(config, dataset=args.emoji)
        train(config)


if __name__ == "__main__":
    main()
