"""Progress bars; a line now and then where the output is a log and not a terminal."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30
LINE_FORMAT = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def progress(total: int | None, **options) -> "tqdm | ProgressLines":
    """Returns a bar of tqdm for `total` units, None where that is not known; `options` are tqdm's."""
    if sys.stderr.isatty():
        return tqdm(total=total, dynamic_ncols=True, **options)
    return ProgressLines(total, **options)


class ProgressLines:
    """What a tqdm bar tells, in a line every SECONDS_BETWEEN_LINES and one at the end."""

    def __init__(
        self,
        total: int | None,
        *,
        desc: str = "",
        initial: int = 0,
        unit: str = "it",
        unit_scale: bool = False,
        leave: bool = True,
    ):
        self.total, self.n, self.initial, self.leave = total, initial, initial, leave
        self.style = {"prefix": desc, "unit": unit, "unit_scale": unit_scale}
        self.style |= {"bar_format": LINE_FORMAT} if total else {}  # tqdm's own says no share where there is no total
        self.postfix, self.begun_at = "", time.monotonic()
        self.written_at = self.begun_at

    def update(self, n: int = 1):
        self.n += n
        if time.monotonic() - self.written_at >= SECONDS_BETWEEN_LINES:
            self._write_line()

    def set_postfix(self, **values: str):
        self.postfix = ", ".join(f"{name}={value}" for name, value in values.items())

    def write(self, text: str):
        print(text, flush=True)

    def close(self):
        if self.leave:
            self._write_line()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *error: object):
        self.close()

    def _write_line(self):
        elapsed = time.monotonic() - self.begun_at
        line = tqdm.format_meter(self.n, self.total, elapsed, initial=self.initial, postfix=self.postfix or None, **self.style)
        print(line, file=sys.stderr, flush=True)
        self.written_at = time.monotonic()
