"""A one-line progress bar on stderr, shown only where a person is watching (a terminal).

    label  ######------  51%  254.0/498.0 MB  12.3 MB/s  0:20 left
"""

import sys
import time


class Progress:
    """Count `total` units of work; `with Progress(...) as bar: bar.add(n)`.

    total: the work in all, in units, or None where unknown; unit: printed behind the numbers;
    scale: units are divided by it for printing (1e6 to show bytes as MB); done: finished before.
    """

    def __init__(self, label: str, total=None, unit: str = "", scale: float = 1, done: int = 0):
        self.label, self.total, self.unit, self.scale = label, total, unit, scale
        self.done = self.done_before = done
        self.start = time.monotonic()
        self.drawn = 0.0
        self.shown = sys.stderr.isatty()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.shown and self.drawn:
            self.draw()
            sys.stderr.write("\n")

    def add(self, n: int = 1) -> None:
        """Note that n more units are done; redraws at most ten times a second."""
        self.done += n
        if self.shown and time.monotonic() - self.drawn > 0.1:
            self.draw()

    def draw(self) -> None:
        """Write the line over the previous one."""
        self.drawn = time.monotonic()
        rate = (self.done - self.done_before) / max(self.drawn - self.start, 1e-9)
        done, unit = f"{self.done / self.scale:.1f}".removesuffix(".0"), self.unit
        if self.total:
            share = min(self.done / self.total, 1)
            left = (self.total - self.done) / rate if rate else 0
            line = (f"{'#' * int(24 * share):-<24} {share:4.0%}  {done}/{self.total / self.scale:.1f} {unit}"
                    f"  {rate / self.scale:.1f} {unit}/s  {int(left) // 60}:{int(left) % 60:02d} left")
        else:
            line = f"{done} {unit}  {rate / self.scale:.1f} {unit}/s"
        sys.stderr.write(f"\r\x1b[K{self.label}  {line}")
        sys.stderr.flush()
