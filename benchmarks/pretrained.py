"""Train the models in pretrained/, each by the one command that stands on its card.

    python benchmarks/pretrained.py --emoji DIR          # 70 minutes on two cores
    python benchmarks/pretrained.py sprites-beta-vae     # one of them

`--emoji DIR` is a folder with the Noto Emoji data set as parquet files, `--data DIR` says where
Fashion-MNIST is, as for train.py's --data_dir.
"""

import argparse

from run import run

# Steps, not minutes: whatever the machine, the same model.
MODELS = {
    "fashion-mnist-vae": "--dataset fashion-mnist --prior mixture --max_train_steps 14000",
    "fashion-mnist-vq-vae": (
        "--model vq-vae --dataset fashion-mnist --codebook_size 256 --max_train_steps 5000 "
        "--save_fp16"
    ),
    "sprites-beta-vae": (
        "--model beta-vae --dataset sprites --resolution 32 --beta_start 200 --beta 20 "
        "--max_train_steps 20000"
    ),
    "noto-emoji-vae": (
        "--dataset noto-emoji --latent_dim 64 --random_flip --use_ema --prior mixture "
        "--max_train_steps 4000"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--emoji", default="noto-emoji", help="where the emoji are")
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    for name in args.names or MODELS:
        words = [args.emoji if word == "noto-emoji" else word for word in MODELS[name].split()]
        data = ["--data_dir", args.data] if args.data else []
        run(["train.py", *words, *data, "--overwrite_output_dir",
             "--output_dir", f"pretrained/{name}"])  # fmt: skip


if __name__ == "__main__":
    main()
