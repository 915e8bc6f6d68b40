"""Damaged and hostile files: loaded bit by bit as they were saved, or refused in our own words."""

import json
import random
import struct
import warnings

import pytest
import torch

import hfvae
from hfvae import HubError
from hfvae.hub.files import CONFIG, METADATA, WEIGHTS

MUTATIONS = 500  # of each family
SLACK = 8 * 2**20  # bytes by which the process may grow for other reasons
HOSTILE = [
    None, True, -1, 0, 1, 3, 4096, 65536, 2**31, 10**30, -(10**400), 1e308, 0.5, float("nan"),
    float("inf"), "", "vae", "x" * 10_000, [], [4096] * 12, [[8]], [8, 4096], {"a": 1}, "\ud800",
]  # fmt: skip


def families():
    shape = {"image_size": (16, 24), "channels": 1, "widths": (8, 128), "hidden": 0}
    codes = {"codebook_size": 64, "embedding_dim": 8, "prior": "autoregressive", "prior_width": 64}
    return {
        "vae": hfvae.VAE(hfvae.VAEConfig(latent_dim=32, prior="mixture", **shape)),
        "autoencoder": hfvae.Autoencoder(hfvae.AutoencoderConfig(latent_dim=32, **shape)),
        "vq-vae": hfvae.VQVAE(hfvae.VQVAEConfig(**codes, **shape)),
        "fsq-vae": hfvae.VQVAE(hfvae.VQVAEConfig(quantizer="fsq", **codes, **shape)),
    }


def damage(data: bytes, draw: random.Random) -> bytes:
    """Any file: bytes changed, lost, repeated, cut off or added."""
    # Half of the time near the start, where a safetensors file says what it holds.
    at = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 4000))
    n = draw.choice([1, 1, 1, 8, 100])
    return draw.choice(
        [
            data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
            data[:at] + draw.randbytes(n) + data[at + n :],
            data[:at] + data[at + n :],
            data[:at] + data[at : at + n] + data[at:],
            data[:at],
            data + draw.randbytes(n),
            b"",
        ]
    )


def hostile_config(data: bytes, draw: random.Random) -> bytes:
    settings = json.loads(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        key = draw.choice([*settings, "unknown", "auto_map"])
        if draw.random() < 0.1:
            settings.pop(key, None)
        else:
            settings[key] = draw.choice(HOSTILE)
    text = json.dumps(settings)
    if draw.random() < 0.05:
        text = text.replace(":", ":" + "[" * draw.choice([10, 50_000]), 1)
    return text.encode()


def hostile_header(data: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = draw.choice(list(header))
    if name == "__metadata__":
        header[name] = draw.choice([{}, {METADATA: "{}"}, {METADATA: "[" * 9999}, {"a": "b"}])
    else:
        entry = header[name]
        match draw.randrange(6):
            case 0:
                entry["dtype"] = draw.choice(["F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"])
            case 1:
                entry["shape"] = draw.choice([[], [0], [2**40], [1, *entry["shape"]], [-1]])
            case 2:
                entry["data_offsets"] = draw.choice([[0, 0], [0, 2**60], [5, 1], [0, len(body)]])
            case 3:
                header[draw.choice(["../../x", "", "x" * 9999, name + ".y"])] = header.pop(name)
            case 4:
                other = draw.choice([n for n in header if n != "__metadata__"])
                header[name], header[other] = header[other], header[name]
            case 5:
                del header[name]
    text = json.dumps(header).encode()
    length = draw.choice([len(text)] * 9 + [2**63, 0, 10**8])
    return struct.pack("<Q", length) + text + body


def forged(files: dict[str, bytes], draw: random.Random) -> dict[str, bytes]:
    """A hostile config.json that the weights' metadata agree with."""
    config = hostile_config(files[CONFIG], draw)
    data = files[WEIGHTS]
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    saved = json.loads(header["__metadata__"][METADATA])
    try:
        saved["config"] = json.loads(config)
    except (ValueError, RecursionError):
        return files | {CONFIG: config}
    header["__metadata__"][METADATA] = json.dumps(saved)
    text = json.dumps(header).encode()
    return {CONFIG: config, WEIGHTS: struct.pack("<Q", len(text)) + text + data[8 + length :]}


def mutated(files: dict[str, bytes], draw: random.Random) -> tuple[dict[str, bytes], bool]:
    """Files with one mutation, and whether the config may be another than it was."""
    match draw.randrange(6):
        case 0:
            return files | {CONFIG: damage(files[CONFIG], draw)}, False
        case 1:
            return files | {CONFIG: hostile_config(files[CONFIG], draw)}, False
        case 2 | 3:
            return files | {WEIGHTS: damage(files[WEIGHTS], draw)}, False
        case 4:
            return files | {WEIGHTS: hostile_header(files[WEIGHTS], draw)}, False
        case _:
            return forged(files, draw), True


class PeakMemory:
    """How much the process grew, at its peak, since it was made."""

    def __init__(self) -> None:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        self.start = self.read("VmRSS")

    def read(self, name: str) -> int:
        with open("/proc/self/status") as f:
            return next(1024 * int(line.split()[1]) for line in f if line.startswith(name))

    def growth(self) -> int:
        return self.read("VmHWM") - self.start


@pytest.mark.parametrize("family", families())
def test_no_mutation_crashes_costs_memory_or_loads_something_else(family, tmp_path):
    model = families()[family].eval()
    model.save_pretrained(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    hfvae.from_pretrained(tmp_path)  # the first load imports what it needs
    draw = random.Random(family)
    loaded = refused = 0
    for i in range(MUTATIONS):
        changed, other_config = mutated(files, draw)
        for name, data in changed.items():
            (tmp_path / name).write_bytes(data)
        memory, again, words = PeakMemory(), None, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again = hfvae.from_pretrained(tmp_path)
        except (HubError, FileNotFoundError) as error:
            words = str(error)
        if again is None:
            refused += 1
            assert 0 < len(words) < 1000, i
            assert "\n" not in words, i
        else:
            loaded += 1
            assert other_config or again.config == model.config, i
            ours, theirs = model.state_dict(), again.state_dict()
            assert ours.keys() == theirs.keys(), i
            assert all(torch.equal(ours[k], theirs[k]) for k in ours), i
        assert memory.growth() < 2 * len(files[WEIGHTS]) + SLACK, i
    assert loaded > 0  # whitespace, for one
    assert refused > MUTATIONS / 2
