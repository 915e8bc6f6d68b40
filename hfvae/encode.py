"""The latents of a whole data set in its order, for whoever trains a model on them.

python -m hfvae.encode runs/photos-spatial-vae --dataset path/to/photos --output latents.safetensors

It writes FILE.partial: the header of the file to be, and rows as they come. Their number is the
progress: killed and run again, it goes on there. When all is written, it is renamed.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import BaseAutoencoder
from .data import ImageSet
from .errors import expand
from .evaluate import arguments, batch_size, model_and_images
from .hub import check_output
from .hub.files import digest
from .hub.lock import locked
from .machine import keep_freed_memory

DTYPES = {torch.float32: "F32", torch.int64: "I64"}


@torch.inference_mode()
def encode(
    model: BaseAutoencoder, images: ImageSet, file: Path, names: Mapping[str, str] | None = None
) -> None:
    """Write the latents of images as safetensors: `latents` or `codes`, and what they say as a set.

    Args:
        model: any family.
        images: taken in their order; binary pixels at 0.5.
        file: what to write; whatever was there stays until the new one is whole.
        names: "model" and "dataset", for the metadata.

    Raises:
        OSError: it cannot be written, or another process is writing it.
    """
    from tqdm import tqdm

    latents, size = model.eval().bottleneck, batch_size(model)
    n, first = len(images), latents.row(model.infer(images.batch(slice(1), model.device))).cpu()
    statistics = latents.statistics(lambda: [first])  # of one row: for their names and shapes
    metadata = {
        "dataset": images.name,
        **(names or {}),
        "split": images.split,
        # What says that a file which was begun is of the same latents.
        "weights_sha256": digest({k: t.cpu() for k, t in model.state_dict().items()}),
        "images_sha256": images.fingerprint(),
    }
    rows = first.expand(n, *first.shape[1:])
    header = safetensors_header({latents.rows: rows} | statistics, metadata)
    partial, length = file.with_name(file.name + ".partial"), first.nbytes
    with locked(file.with_name(f".{file.name}.lock")), open(partial, "a+b") as f:
        f.seek(0)
        if f.read(len(header)) != header:
            f.truncate(0)
            f.write(header)
        # Whole batches only: the rest of one, encoded alone, could be rounded otherwise.
        done = (f.seek(0, os.SEEK_END) - len(header)) // length // size * size
        done = min(done, n // size * size)
        f.truncate(len(header) + done * length)
        for start in tqdm(range(done, n, size), initial=done // size, total=-(-n // size)):
            x = images.batch(slice(start, start + size), model.device)
            row = latents.row(model.infer(model.likelihood.nearest(x)))
            f.write(row.cpu().contiguous().numpy().tobytes())

        def written() -> Iterator[Tensor]:
            """The rows, a few at a time: all of them may be more than memory holds."""
            f.seek(len(header))
            for start in range(0, n, size):
                data = bytearray(f.read(min(size, n - start) * length))
                yield torch.frombuffer(data, dtype=first.dtype).view(-1, *first.shape[1:])

        for values in latents.statistics(written).values():
            f.write(values.contiguous().numpy().tobytes())
        f.flush()
        os.fsync(f.fileno())
        os.replace(partial, file)


def safetensors_header(tensors: dict[str, Tensor], metadata: Any) -> bytes:
    """What such a file starts with, before the bytes of the tensors one after the other."""
    end, found = 0, {"__metadata__": metadata}
    for name, tensor in tensors.items():
        place = [end, end + tensor.numel() * tensor.element_size()]
        shape, end = list(tensor.shape), place[1]
        found[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": place}
    header = json.dumps(found).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def main(argv: list[str] | None = None) -> None:
    parser = arguments("encode", __doc__, split="train")
    parser.add_argument("--output", type=expand, required=True, help="a safetensors file")
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        check_output(args.output)
        model, images = model_and_images(args)
        encode(model, images, args.output, {"model": args.model, "dataset": args.dataset})
    except TimeoutError:
        print(f"encode: another process is writing {args.output}", file=sys.stderr)
        raise SystemExit(2) from None
    except (OSError, ValueError) as error:
        print(f"encode: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
