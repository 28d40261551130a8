"""Whether memory stays flat over hours: python tests/faults/memory.py --minutes 60

A training (which evaluates, saves, draws and writes a story every few seconds) and then the pretrained model, which writes one
text after the other, run for that long each; what each has in memory (VmRSS) is read every second. Printed is the largest of
each tenth of the time, in MB.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forks import ROOT, arguments, make_tokens

WRITES = """
from alilama.model.folder import find_pretrained, load_model
from alilama.writing.streams import stream_text
model, tokenizer = load_model(find_pretrained())
for seed in range(10**9):
    options = {"context": 256} if seed % 2 else {}
    print(seed, len("".join(stream_text(model, tokenizer, "Once upon", max_new_tokens=600, seed=seed, **options))), flush=True)
"""
MOST_GROWTH = 1.02  # from the second tenth to the last


def resident_mb(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def measure(name: str, command: list[str], folder: Path, minutes: float) -> bool:
    """Runs a script for some minutes; prints what it had in memory, and returns whether that stayed flat."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / f"{name}.txt", "w") as output:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdout=output, stderr=output)
        started, samples = time.monotonic(), []
        while (now := time.monotonic() - started) < 60 * minutes and process.poll() is None:
            samples.append((now, resident_mb(process.pid)))
            time.sleep(1)
        assert process.poll() is None, (folder / f"{name}.txt").read_text()[-2000:]
        process.terminate()
        process.wait()
    tenths = [max(mb for at, mb in samples if int(10 * at / (60 * minutes)) == tenth) for tenth in range(10)]
    print(f"{name}, {minutes:g} minutes, MB: {' '.join(f'{mb:.1f}' for mb in tenths)}", flush=True)
    return tenths[-1] <= MOST_GROWTH * tenths[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of each [60]")
    parser.add_argument("--only", choices=["training", "generation"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_tokens(folder)
        endless = {"train_tokens": 10**12, "eval_interval": 200, "eval_tokens": 1000, "log_interval": 10}
        commands = {"training": [str(ROOT / "train.py"), *arguments(**endless)], "generation": ["-c", WRITES]}
        chosen = [options.only] if options.only else list(commands)
        flat = [measure(name, commands[name], folder, options.minutes) for name in chosen]
    sys.exit(not all(flat))


if __name__ == "__main__":
    main()
