"""The store of large files behind a Hub, as hf_xet asks for it (https://huggingface.co/docs/xet).

A client cuts files into chunks and uploads these in bundles (xorbs), with a table (shard) that says
which chunks make which file. To download a file it asks for its chunks' places, and fetches those.
"""

import struct
import tempfile
import time
from pathlib import Path

TOKEN = "xet"  # what clients get from the Hub instead of showing the Hub's token here
ENTRY = 48  # bytes of each entry of a shard, and of its header
END_OF_FILES = b"\xff" * 32
VERIFICATION, METADATA = 1 << 31, 1 << 30  # flags of a file: what follows its terms


class Store:
    """Files by their Xet hash, kept as clients sent them."""

    def __init__(self) -> None:
        self.url = ""
        self.xorbs: dict[str, bytes] = {}
        self.terms: dict[str, list[tuple[str, int, int, int]]] = {}  # xorb, bytes, chunks from, to
        self.hashes: dict[str, str] = {}  # a file's SHA-256 -> its Xet hash

    def access(self) -> dict[str, str]:
        expires = int(time.time()) + 3600
        return {"endpoint": self.url, "token": TOKEN, "token_expiry_unix_secs": expires}

    def add_shard(self, shard: bytes) -> None:
        at = ENTRY
        while shard[at : at + 32] != END_OF_FILES:
            name, (flags, n) = (
                as_text(shard[at : at + 32]),
                struct.unpack_from("<II", shard, at + 32),
            )
            at += ENTRY
            self.terms[name] = []
            for term in range(at, at + n * ENTRY, ENTRY):
                _, size, first, end = struct.unpack_from("<4I", shard, term + 32)
                self.terms[name].append((as_text(shard[term : term + 32]), size, first, end))
            at += n * ENTRY * (2 if flags & VERIFICATION else 1)
            if flags & METADATA:
                self.hashes[as_text(shard[at : at + 32])] = name
                at += ENTRY

    def size(self, name: str) -> int:
        return sum(size for _, size, _, _ in self.terms[name])

    def places(self, name: str) -> dict:
        """Where the chunks of a file lie."""
        found = {"offset_into_first_range": 0, "terms": [], "fetch_info": {}}
        for xorb, size, first, end in self.terms[name]:
            chunks = {"start": first, "end": end}
            starts = chunk_starts(self.xorbs[xorb])
            span = {"start": starts[first], "end": starts[end] - 1}
            place = {"range": chunks, "url": f"{self.url}/xorb/{xorb}", "url_range": span}
            found["terms"].append({"hash": xorb, "unpacked_length": size, "range": chunks})
            found["fetch_info"].setdefault(xorb, []).append(place)
        return found

    def read(self, sha256: str) -> bytes:
        """The content of a file, which takes hf_xet to unpack."""
        import hf_xet  # reads the environment, which conftest.py has set by now

        name = self.hashes[sha256]
        file = hf_xet.XetFileInfo(name, self.size(name))
        with tempfile.TemporaryDirectory() as folder:
            with hf_xet.XetSession().new_file_download_group(**self.access()) as group:
                group.start_download_file(file, f"{folder}/file")
            return Path(folder, "file").read_bytes()


def as_text(raw: bytes) -> str:
    """A hash as it is printed: four little-endian words."""
    return "".join(raw[i : i + 8][::-1].hex() for i in range(0, 32, 8))


def chunk_starts(xorb: bytes) -> list[int]:
    """Where the chunks of a xorb start, and where the last one ends."""
    starts = [0]
    while starts[-1] < len(xorb) and not xorb.startswith(b"XETBLOB", starts[-1]):
        packed = int.from_bytes(xorb[starts[-1] + 1 : starts[-1] + 4], "little")
        starts.append(starts[-1] + 8 + packed)
    return starts
