"""python -m hfvae.hub runs/photos-vae owner/name: publish a folder that train.py left."""

import argparse
import sys

from ..errors import expand
from .publish import push_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hfvae.hub", description="Publish a folder that train.py left on the Hub."
    )
    parser.add_argument("folder", type=expand)
    parser.add_argument("repo_id", help="owner/name")
    parser.add_argument("--private", action="store_true", default=None)
    args = parser.parse_args()
    try:
        print(push_folder(args.folder, args.repo_id, private=args.private))
    except OSError as error:
        print(f"hub: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
