"""Kills runs of train.py and lets them go on: python tests/faults/kills.py --kills 1000

A short run is killed (SIGKILL) before each system call with which it writes into its folder, once each (before some, drawn at
random, where half the kills are not enough), and then at moments drawn at random, up to five times in a row. Each time the same
command goes on to the end, which is compared with that of a run nobody disturbed: weights byte for byte, every value of the
training state bit for bit, the log but for the speed, and no file may be left over. Calls need strace.
"""

import argparse
import csv
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from forks import SETTINGS, STEPS, comparable, finish, fork_training, make_tokens, timed

from alilama.training.resume import load_state

WRITTEN = ("config.json", "generation_config.json", "log.csv", "loss.png", "model.safetensors", "README.md", "tokenizer.json")
WRITTEN += ("tokenizer_config.json", "training_state.pt")
CALL = re.compile(r"(\w+)\(")


def traced(folder: Path, pid: int, *options: str) -> subprocess.Popen:
    """Attaches strace to a child that has stopped itself, for the calls with files of its model folder, and lets it go on."""
    paths = [folder / "models/owl" / end for name in WRITTEN for end in (name, f"{name}.{pid}.alilama.part")]
    paths += [Path("models/owl") / path.name for path in paths]
    paths += [Path("models/owl"), folder / "models/owl"]
    command = ["strace", "-o", folder / "calls.txt", "-p", str(pid), *(f"-P{path}" for path in paths), *options]
    tracer = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, encoding="utf-8")
    line = tracer.stderr.readline()
    assert "attached" in line, line
    subprocess.run(["kill", "-CONT", str(pid)], check=True)
    return tracer


def list_calls(folder: Path) -> list[tuple[str, int]]:
    """Returns the calls of a run with files of its model folder: the name of each, and which one of that name it is."""
    pid = fork_training(folder, waits=True)
    tracer = traced(folder, pid)
    assert finish(pid) == 0
    tracer.wait()
    counts, calls = Counter(), []
    for line in (folder / "calls.txt").read_text().splitlines():
        if found := CALL.match(line):
            counts[found[1]] += 1
            calls.append((found[1], counts[found[1]]))
    return calls


def kill_at_call(folder: Path, name: str, number: int) -> int:
    pid = fork_training(folder, waits=True)
    tracer = traced(folder, pid, f"-einject={name}:signal=KILL:when={number}")
    code = finish(pid)
    tracer.wait()
    return code


def kill_at_moment(folder: Path, seconds: float) -> int:
    pid = fork_training(folder)
    time.sleep(seconds)
    subprocess.run(["kill", "-KILL", str(pid)], check=False)
    return finish(pid)


def result_of(folder: Path) -> dict[str, object]:
    """Returns what a run left that has to be the same each time: weights, state, log without the speed, names of files."""
    model = folder / "models/owl"
    with open(model / "log.csv", newline="") as file:
        rows = [{name: cell for name, cell in row.items() if name != "tokens_per_s"} for row in csv.DictReader(file)]
    left_over = [path.name for path in model.iterdir() if path.suffix == ".part" or path.name == ".lock"]
    binary = {name: (model / name).read_bytes() for name in ("model.safetensors", "config.json")}
    return {**binary, "training_state.pt": comparable(load_state(model)), "log": rows, "left over": left_over}


def go_on(folder: Path) -> str:
    """Runs the command to its end; returns what it said that it goes on from."""
    code = finish(fork_training(folder))
    said = (folder / "output.txt").read_text()
    if code != 0:
        assert "is trained to its end" in said, said
        return "the end"
    found = re.search(r"Going on from step (\d+)", said)
    return f"step {found[1]}" if found else "the start"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of the run, such as compile_model=True")
    parser.add_argument("--kills", type=int, default=1000, help="how many in all [1000]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no_calls", action="store_true", help="only at random moments, where there is no strace")
    options = parser.parse_args()
    SETTINGS.update(setting.split("=", 1) for setting in options.settings)
    rng, done, went_on, differ = random.Random(options.seed), Counter(), Counter(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_tokens(folder)
        timed(fork_training(folder))  # a compiler keeps what it made
        shutil.rmtree(folder / "models")
        seconds = timed(fork_training(folder))
        whole = result_of(folder)
        assert len(whole["log"]) == STEPS
        shutil.rmtree(folder / "models")
        calls = [] if options.no_calls else list_calls(folder)
        if calls:
            assert result_of(folder) == whole, "two undisturbed runs differ"
        print(f"one run: {seconds:.1f} s, {len(calls)} calls with files of its folder", flush=True)
        calls = rng.sample(calls, options.kills // 2) if len(calls) > options.kills // 2 else calls
        while done["before a call"] + done["at a moment"] < options.kills:
            shutil.rmtree(folder / "models", ignore_errors=True)
            how = "before a call" if calls else "at a moment"
            if calls:
                moments = [calls.pop(0)]
                codes = [kill_at_call(folder, *moments[0])]
            else:
                moments, codes = [], []
                while len(codes) < 5 and codes.count(-signal.SIGKILL) == len(codes):
                    moments.append(rng.uniform(0, seconds))
                    codes.append(kill_at_moment(folder, moments[-1]))
            done[how] += sum(code == -signal.SIGKILL for code in codes)
            done["not killed, it had ended"] += sum(code in (0, 1) for code in codes)
            if unknown := [code for code in codes if code not in (-signal.SIGKILL, 0, 1)]:
                differ.append((how, moments, f"exit codes {unknown}"))
            try:
                went_on[go_on(folder)] += 1
                found = result_of(folder)
                different = [name for name in whole if found[name] != whole[name]]
            except Exception as error:
                different = [f"{type(error).__name__}: {error}"]
            if different:
                differ.append((how, moments, different))
                print("DIFFERENT", differ[-1], flush=True)
            if went_on.total() % 50 == 0:
                print(dict(done), dict(went_on), f"{len(differ)} differ", flush=True)
    print(f"killed: {dict(done)}\nwent on from: {dict(sorted(went_on.items()))}\nother ends: {len(differ)}")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
