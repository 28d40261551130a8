"""Measures training beside another program: python tests/benchmarks/beside.py [--shapes 470K,2M] [--seconds 10] [--turns 3]

Tokens/s of whole steps on one thread, and on two with each of several GOMP_SPINCOUNT (how long libgomp's threads spin before
they sleep): alone, beside a busy loop that is bound to one of two cores, and beside one that is free to move. Medians of turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from training import make_alilama, random_windows

from alilama.training.trainer import choose_precision

CORES = sorted(os.sched_getaffinity(0))[:2]
BESIDE = {"nothing": (), "a busy loop on one of two cores": CORES[1:], "a busy loop on any of two cores": CORES}
SPINS = (1, 100, 300, 1000, None)  # None leaves it to libgomp
CONTEXT, WARM_UP_STEPS = 128, 10


def tokens_per_s(shape_name: str, tokens: int, seconds: float, busy_cores: list[int]) -> float:
    """Trains in this process, beside a busy loop on some cores after the first steps."""
    shape, batches = random_windows(shape_name, CONTEXT, tokens // CONTEXT)
    train_step = make_alilama(shape, tokens // CONTEXT, choose_precision("cpu", "auto"), "cpu", batches)
    for step in range(WARM_UP_STEPS):
        train_step(step)
    bind = f"import os; os.sched_setaffinity(0, {busy_cores})"
    loop = subprocess.Popen([sys.executable, "-c", f"{bind}\nwhile True: pass"]) if busy_cores else None
    try:
        time.sleep(0.5)
        steps, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            train_step(WARM_UP_STEPS + steps)
            steps += 1
    finally:
        if loop is not None:
            loop.kill()
    return steps * tokens / spent


def measure(arguments: argparse.Namespace, shape: str, threads: int, spins: int | None, busy_cores: list[int]) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = str(spins)
    case = [f"--only={shape}", f"--tokens={arguments.tokens}", f"--seconds={arguments.seconds}"]
    case += [f"--busy={','.join(map(str, busy_cores))}"]
    command = [sys.executable, __file__, *case]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", default="470K,2M", help="of training.py's [470K,2M]")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens in a step [4096]")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement [10]")
    parser.add_argument("--turns", type=int, default=3, help="how often everything is measured [3]")
    parser.add_argument("--only", metavar="SHAPE", help="print the tokens/s of this process and end")
    parser.add_argument("--busy", default="", metavar="CORES", help="of the busy loop, with --only")
    arguments = parser.parse_args()
    if arguments.only:
        busy_cores = [int(core) for core in arguments.busy.split(",") if core]
        print(tokens_per_s(arguments.only, arguments.tokens, arguments.seconds, busy_cores))
        return
    os.sched_setaffinity(0, CORES)
    ways = [(1, None)] + [(2, spins) for spins in SPINS]
    print(f"{'shape':>6}  {'beside':<33}{'1 thread':>10}", *(f"{'2, ' + str(spins):>9}" for spins in SPINS))
    for shape in arguments.shapes.split(","):
        found = {(beside, way): [] for beside in BESIDE for way in ways}
        for _ in range(arguments.turns):
            for beside, way in found:
                found[beside, way].append(measure(arguments, shape, *way, BESIDE[beside]))
        for beside in BESIDE:
            medians = [statistics.median(found[beside, way]) for way in ways]
            print(f"{shape:>6}  {beside:<33}{''.join(f'{median:>10,.0f}' for median in medians)}", flush=True)


if __name__ == "__main__":
    main()
