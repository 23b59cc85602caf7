"""crc32c: published values, and the definition bit by bit."""

import numpy as np
import pytest

import tinyheads.files.crc32c
from file_writers import plain_crc32c
from tinyheads.files.crc32c import crc32c, masked


def by_definition(data: bytes) -> int:
    """Long division by the reversed polynomial, one bit at a time; first and last all bits are inverted."""
    register = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            differ = (register ^ byte >> bit) & 1
            register >>= 1
            if differ:
                register ^= 0x82F63B78
    return register ^ 0xFFFFFFFF


def some_bytes(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("data, crc", [  # RFC 3720, appendix B.4, and the usual check value
    (bytes(32), 0x8A9136AA), (b"\xFF" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283), (b"", 0)])
def test_published_values(data, crc):
    assert crc32c(data) == crc
    assert by_definition(data) == crc


def test_masked_form_of_a_published_value():
    # LevelDB's crc32c.h: rotate right by 15 bits, add 0xa282ead8
    rotated = int(f"{0xE3069283:032b}"[-15:] + f"{0xE3069283:032b}"[:-15], 2)
    assert masked(0xE3069283) == (rotated + 0xA282EAD8) % 2**32


@pytest.mark.parametrize("n", [1, 2, 3, 127, 128, 129, 2047, 2048, 2049, 4095, 4096, 4097, 4160, 8191, 8192, 8193,
                               12345,
                               16383, 16384, 16385, 40000])
def test_definition_at_sizes_around_the_lanes_boundaries(n):
    data = some_bytes(n, seed=n)
    assert crc32c(data) == by_definition(data)


def test_every_size_up_to_three_hundred_and_around_the_first_lanes():
    data = some_bytes(5000)
    for n in [*range(300), *range(4090, 4110), *range(4220, 4232)]:
        assert crc32c(data[:n]) == plain_crc32c(data[:n]), n


@pytest.mark.parametrize("n", [8 * 65536 // 64 * 16 - 1, 128 * 65536, 128 * 65536 + 12_347])
def test_megabytes_in_all_lanes(n):
    data = some_bytes(n)
    assert crc32c(data) == plain_crc32c(data)


def test_with_few_lanes_the_rows_get_long(monkeypatch):
    monkeypatch.setattr(tinyheads.files.crc32c, "LANES", 32)
    data = some_bytes(50_001)
    assert crc32c(data) == plain_crc32c(data)


@pytest.mark.parametrize("piece", [1, 7, 4096, 4097, 10_000, 30_000, 30_001])
def test_the_result_does_not_depend_on_the_piece_at_a_time(piece):
    data, told = some_bytes(30_000), []
    assert crc32c(data, piece=piece, progress=told.append) == plain_crc32c(data)
    assert sum(told) == 30_000


def test_bytes_of_a_file_at_an_odd_address(tmp_path):
    (tmp_path / "file").write_bytes(some_bytes(20_000))
    mapped = np.memmap(tmp_path / "file", dtype=np.uint8, mode="r")
    assert crc32c(mapped[3:19_996]) == by_definition(some_bytes(20_000)[3:19_996])


def test_every_flipped_bit_shows():
    data = some_bytes(200)
    crcs = {crc32c(data)}
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        crcs.add(crc32c(bytes(damaged)))
    assert len(crcs) == 8 * len(data) + 1
