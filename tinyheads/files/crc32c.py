"""crc32c in NumPy: the checksum that TensorFlow stores for every tensor, at hundreds of MB a second.

A CRC is the remainder of a long polynomial division over GF(2). Two facts make it fast without C:

1. One step takes several bytes: the next state is a table look-up of (state XOR the bytes).
2. It is linear. With zero initial state, crc(A + B) = shift(crc(A), len(B)) XOR crc(B), where
   shift feeds len(B) zero bytes. So the data is cut into many equal lanes, all lanes step at once
   as one NumPy vector, and neighbours are then joined in pairs, like a tournament.

Castagnoli polynomial 0x1EDC6F41 (reflected 0x82F63B78), as in RFC 3720, appendix B.4.
"""

from typing import Callable

import numpy as np

POLYNOMIAL = 0x82F63B78
LANES = 1 << 16


def byte_steps(states: np.ndarray, n: int) -> np.ndarray:
    """Feed n zero bytes to each state, bit by bit: the definition, for building tables. uint32 [...]"""
    for _ in range(8 * n):
        states = (states >> 1) ^ np.where(states & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    return states


TABLE_1 = byte_steps(np.arange(1 << 8, dtype=np.uint32), 1).tolist()  # [256]: one byte at a step, in plain Python
TABLE_2 = byte_steps(np.arange(1 << 16, dtype=np.uint32), 2)          # [65536]: two bytes at a step, as a vector


def shift_tables(n_bytes: int) -> np.ndarray:
    """Tables of `shift(crc, n_bytes)`, one for each byte of the crc: uint32 [4, 256].

    Shifting is linear, so that squaring it (shift by n, twice) doubles n: log2(n) steps.
    """
    values = np.arange(256, dtype=np.uint32)
    result = np.stack([values << (8 * i) for i in range(4)])  # shift by 0 bytes: [4, 256]
    power = byte_steps(result, 1)                             # shift by 1 byte, then 2, 4, ...
    while n_bytes:
        if n_bytes & 1:
            result = shift(result, power)
        power = shift(power, power)
        n_bytes >>= 1
    return result


def shift(crcs: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Apply a shift of `shift_tables` to each crc of an array: uint32 [...]"""
    return (tables[0][crcs & 255] ^ tables[1][(crcs >> 8) & 255]
            ^ tables[2][(crcs >> 16) & 255] ^ tables[3][crcs >> 24])


def crc_of_lanes(lanes: np.ndarray) -> int:
    """Raw crc (zero initial state) of uint16 [N lanes, W words], read row after row; N a power of two."""
    states = np.zeros(len(lanes), dtype=np.uint32)  # [N]
    for block in range(0, lanes.shape[1], 64):      # 64 words of every lane at once: cache lines are used whole
        columns = np.ascontiguousarray(lanes[:, block:block + 64].T)  # [<= 64, N]
        for words in columns:
            states = TABLE_2[(states & 0xFFFF) ^ words] ^ (states >> 16)  # [N]
    n_bytes = 2 * lanes.shape[1]
    while len(states) > 1:
        states = shift(states[0::2], shift_tables(n_bytes)) ^ states[1::2]  # [N / 2]
        n_bytes *= 2
    return int(states[0])


def crc32c(data: np.ndarray | bytes, piece: int = 1 << 26, progress: Callable[[int], None] | None = None) -> int:
    """crc32c of bytes or a uint8 array, `piece` bytes at a time; `progress(n)` is told of n bytes done."""
    data = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    state = 0xFFFFFFFF
    for start in range(0, len(data), piece):
        part = data[start:start + piece]
        # As many lanes as leave each 64 words or more; data too short for that goes byte by byte.
        n_lanes = min(LANES, 1 << max(len(part) // 128, 1).bit_length() - 1)
        n_even = len(part) // (2 * n_lanes) * (2 * n_lanes) if n_lanes > 16 else 0
        if n_even:
            words = np.frombuffer(part[:n_even].tobytes(), dtype="<u2").reshape(n_lanes, -1)
            state = int(shift(np.uint32(state), shift_tables(n_even))) ^ crc_of_lanes(words)
        for byte in part[n_even:].tolist():
            state = TABLE_1[(state & 255) ^ byte] ^ (state >> 8)
        if progress:
            progress(len(part))
    return state ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The form in which TensorFlow and LevelDB store a crc, so that a crc of crcs stays sound."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
