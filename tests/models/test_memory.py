"""Memory while fetching is the model and the window, whatever the package's size."""

from __future__ import annotations

import subprocess
import sys

_CHILD = """
import io, resource
from ephemeralml.workers.models.fetch import FetchRules, RangedReader
from ephemeralml.workers.models.stores.base import ObjectVersion
from tests.models.forge import forge, load, tensors
from ephemeralml.workers.models.open import open_package
from ephemeralml.workers.models import stream
from ephemeralml.workers.models.manifest import FileEntry, Manifest, PROTECTED
import hashlib, itertools
from ephemeralml.wire.cose import sign1
from tests.models.forge import KEY, OWNER, WRAPPED, SIGNER

CHUNK, COUNT = 1 << 20, 208
head = tensors(a=b"")
shape = CHUNK * COUNT
import json
body = json.dumps({"a": {"dtype": "U8", "shape": [shape], "data_offsets": [0, shape]}}).encode()
prefix = len(body).to_bytes(8, "little") + body
size = len(prefix) + shape

def plain(start, stop):
    return prefix[start:stop] + bytes(min(stop, size) - max(start, len(prefix)))

digest = hashlib.sha256()
for _, place, _ in stream.chunks_of(size, CHUNK):
    digest.update(plain(place.start, place.stop))
manifest = Manifest("m", "1", (FileEntry("model.safetensors", size, digest.digest()),))
context = {"purpose": "model", "model": "m", "manifest": manifest.digest.hex()}
signed = sign1(manifest.encode(), OWNER, protected=PROTECTED)
encoded = stream.PackageHeader(bytes(16), CHUNK, WRAPPED, context, signed).encode()
first = stream.MAGIC + stream.LENGTH.pack(len(encoded)) + encoded
FRAME = CHUNK + 20
total = len(first) + size + 20 * len(list(stream.chunks_of(size, CHUNK)))
cipher_at = stream.ChunkCipher(KEY, bytes(16), encoded)

def frame(number):
    places = list(stream.chunks_of(size, CHUNK))
    _, place, last = places[number]
    cipher = stream.ChunkCipher(KEY, bytes(16), encoded)
    cipher._counter = number
    sealed = cipher.seal(0, number, last, plain(place.start, place.stop))
    return stream.LENGTH.pack(len(sealed)) + sealed

class Store:
    def stat(self): return ObjectVersion(total, "1")
    def close(self): pass
    def read_range(self, version, start, stop):
        while start < stop:
            if start < len(first):
                piece = first[start:stop]
            else:
                number, offset = divmod(start - len(first), FRAME)
                piece = frame(number)[offset:][: stop - start]
            start += len(piece)
            yield piece

rules = FetchRules(range_bytes=4 << 20, window=4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with RangedReader(Store(), rules) as reader:
    model = open_package(
        reader, lambda *_: KEY, trusted_signers=(SIGNER,), expected_manifest_hash=manifest.digest
    )
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert len(model.files["model.safetensors"]) == size
print(peak * 1024 - size)
"""


def test_memory_beside_the_model_is_the_window() -> None:
    """208 MiB, made up as it is read: 4 ranges of 4 MiB under way, one in hand, and the chunks."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 48 << 20
