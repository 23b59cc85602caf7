"""A long run over mutated weight files of both formats, against the official safetensors library. Not run by the tests.

    pip install safetensors==0.8.0
    PYTHONPATH=.:tests:tests/files nice -n 19 python tests/files/fuzz_files.py --files 200000 --seed 0
    PYTHONPATH=.:tests:tests/files python tests/files/fuzz_files.py --golden   # writes tests/golden/verdicts.npz

Half of the files are safetensors (a quarter of those with a GPT-2's tensors), half TensorFlow bundles of a GPT-2. For
each: no exception but CheckpointError; the verdict that mutate_safetensors.agree or mutate_bundles.entries_fit wants;
less than a second of processor time; memory (as tracemalloc counts it) of the file's size and a constant at most.
Prints every file that breaks a rule, by the seed that makes it again, and the figures; status 1 if there was one.

Run once with --files 200000 --seed 1000000: none broke a rule; slowest 0.09 s; at most 127 kB beyond the file's size.
97,413 safetensors refused or read by both, 2,587 refused on purpose; 17,358 of 100,000 bundles read.
"""

import argparse
import random
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

import mutate_bundles
import mutate_safetensors
import tinyheads as th
from tinyheads.files.array_file import map_file, read_array
from tinyheads.files.tensorflow_bundle import read_bundle

GOLDEN = Path(__file__).parents[1] / "golden"
N_GOLDEN = 3000            # files whose verdicts are kept for the tests
CONSTANT = 2_000_000       # bytes of memory that a file may take besides its own size
SLOWEST = 1.0              # seconds


def safetensors_file(seed: int, bases=[]) -> bytes:
    """The mutated safetensors file that belongs to a seed."""
    if not bases:
        bases += [mutate_safetensors.zoo()] * 3 + [mutate_safetensors.gpt2_rows()]
    return mutate_safetensors.mutated_safetensors(bases[seed % 4], random.Random(seed))


def bundle_files(seed: int, bases=[]) -> tuple[bytes, list[bytes], dict | None]:
    """The mutated bundle that belongs to a seed: index, shards, entries where they are known."""
    if not bases:
        bases += mutate_bundles.bases(GOLDEN)
    return mutate_bundles.mutated_bundle(bases[seed % 3], random.Random(seed))


def write_bundle(folder: Path, index: bytes, shards: list[bytes]) -> Path:
    """Put a bundle into a folder; gives the index's path."""
    for n, shard in enumerate(shards):
        (folder / f"model.ckpt.data-{n:05d}-of-{len(shards):05d}").write_bytes(shard)
    (folder / "model.ckpt.index").write_bytes(index)
    return folder / "model.ckpt.index"


def bundle_is_right(path: Path, shards: list[bytes], entries: dict | None) -> tuple[bool, bool]:
    """(whether tinyheads' verdict and every byte are what they should be, whether the bundle was read)."""
    try:
        found = read_bundle(path)
        maps = {entry.file: map_file(entry.file) for entry in found.values()}
        arrays = {name: read_array(entry, maps[entry.file], name) for name, entry in found.items()}
    except th.CheckpointError:
        return entries is None or not mutate_bundles.entries_fit(entries, shards), False
    if entries is None:
        return True, True
    if not mutate_bundles.entries_fit(entries, shards):
        return False, True
    expected = mutate_bundles.arrays_of(entries, shards)
    return ({name: array.tobytes() for name, array in arrays.items()}
            == {name: array.tobytes() for name, array in expected.items()}), True


def measured(size: int, work) -> tuple[object, float, int]:
    """What work() gives, its seconds, and the bytes of memory it took at most beyond `size`."""
    tracemalloc.start()
    start = time.process_time()  # not the clock on the wall: other programs run beside this one
    result = work()
    seconds, memory = time.process_time() - start, tracemalloc.get_traced_memory()[1] - size
    tracemalloc.stop()
    return result, seconds, memory


def long_run(first: int, n_files: int, folder: Path) -> int:
    """Check n_files files, of the seeds from `first` on; gives how many broke a rule."""
    counts, slowest, hungriest, broken = Counter(), (0.0, -1), (0, -1), 0
    for seed in range(first, first + n_files):
        if seed % 2:
            raw = safetensors_file(seed // 2)
            path = folder / "model.safetensors"
            path.write_bytes(raw)
            theirs = mutate_safetensors.library_verdict(raw)
            (ours, message), seconds, memory = measured(len(raw), lambda: mutate_safetensors.tinyheads_verdict(path))
            right = mutate_safetensors.agree(theirs, ours, message)
            verdict = "read by both" if ours else "stricter, for a known reason" if theirs else "refused by both"
            counts["safetensors " + verdict] += 1
        else:
            index, shards, entries = bundle_files(seed // 2)
            path = write_bundle(folder, index, shards)
            (right, was_read), seconds, memory = measured(len(index), lambda: bundle_is_right(path, shards, entries))
            verdict = "read" if was_read else "refused"
            counts[f"bundles {verdict}" + (", as their entries ask for" if entries is not None else "")] += 1
        slowest, hungriest = max(slowest, (seconds, seed)), max(hungriest, (memory, seed))
        if not right or seconds > SLOWEST or memory > CONSTANT:
            broken += 1
            print(f"seed {seed}: {'right' if right else 'WRONG'}, {seconds:.2f} s, {memory} bytes beyond the file's "
                  f"size", flush=True)
        if (seed - first) % 20_000 == 0:
            print(f"{seed - first} files, {broken} broke a rule", file=sys.stderr, flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")
    print(f"{n_files} files, seeds {first} to {first + n_files - 1}: {broken} broke a rule; slowest {slowest[0]:.3f} s "
          f"(seed {slowest[1]}); most memory beyond the file's size {hungriest[0] / 1e3:.0f} kB (seed {hungriest[1]})")
    return broken


def write_golden() -> None:
    """The library's verdict on the first N_GOLDEN safetensors files, and a checksum of each file itself."""
    files = [safetensors_file(seed) for seed in range(N_GOLDEN)]
    np.savez_compressed(GOLDEN / "verdicts.npz", files=np.array([zlib.crc32(raw) for raw in files], dtype=np.uint32),
                        verdicts=np.array([mutate_safetensors.library_verdict(raw) for raw in files], dtype=np.uint32))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; the others follow it")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    if arguments.golden:
        write_golden()
    else:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(min(long_run(arguments.seed, arguments.files, Path(folder)), 1))
