"""Train the models in pretrained/, each by the one command that stands on its card.

    python benchmarks/pretrained.py                      # an hour on a CPU core
    python benchmarks/pretrained.py sprites-beta-vae     # one of them

`--data DIR` says where Fashion-MNIST is, as for train.py's --data_dir.
"""

import argparse

from run import run

# Steps, not minutes: whatever the machine, the same model.
MODELS = {
    "fashion-mnist-vae": "--dataset fashion-mnist --prior mixture --max_train_steps 14000",
    "fashion-mnist-vq-vae": (
        "--model vq-vae --dataset fashion-mnist --codebook_size 256 --max_train_steps 5000 "
        "--prior_fraction 0.09 --save_fp16"
    ),
    "sprites-beta-vae": (
        "--model beta-vae --dataset sprites --resolution 32 --beta_start 200 --beta 8 "
        "--max_train_steps 12000"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--data", help="where torchvision's data are")
    args = parser.parse_args()
    for name in args.names or MODELS:
        data = ["--data_dir", args.data] if args.data else []
        run(["train.py", *MODELS[name].split(), *data, "--overwrite_output_dir",
             "--output_dir", f"pretrained/{name}"])  # fmt: skip


if __name__ == "__main__":
    main()
