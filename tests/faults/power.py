"""Power failures, simulated: python tests/faults/power.py --states 30

A run of train.py, and one of tokenize_data.py over older token files, are recorded: every file that they create, rename, remove
and fsync in their folder, and what is in each at that moment. Then, before every such call, disks are made that a power failure
might have left: what was not synced of a file is there, missing, cut or zeros, and what was done to names since the folder was
synced last happened up to some point ("in order", as the journals of ext4, xfs and btrfs have it), or only some of it,
whichever ("any", which is all that POSIX promises). Each has to load, and the same command has to go on to the end of a run
that nobody disturbed; of the log, which is not synced, rows may be missing. Tokens have to be the old ones or the new ones, or
are refused.
"""

import argparse
import hashlib
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from forks import finish, fork, fork_training, make_tokens, tokenize, train_here
from kills import go_on, result_of

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files

Disk = dict[str, bytes]


def record(action, folder: Path, inside: str) -> list[tuple[str, tuple, Disk]]:
    """Runs `action` in a child, in `folder`; returns each call with files of the folder `inside`, and what was in it before."""

    def recorded():
        events, place, fsync = [], Path(inside), os.fsync

        def add(kind: str, *names: str):
            paths = [Path(os.path.relpath(name)) for name in names]
            if any(path.parent == place or path == place for path in paths) and paths[0].name != ".lock":
                disk = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} if place.is_dir() else {}
                events.append((kind, tuple(path.name if path != place else "" for path in paths), disk))

        def hook(event: str, args: tuple):
            if event == "open" and isinstance(args[0], str | Path) and args[2] & os.O_CREAT:
                add("create", os.fspath(args[0]))
            elif event in ("os.rename", "os.remove") and isinstance(args[0], str | Path):
                add(event, *map(os.fspath, args[: 2 if event == "os.rename" else 1]))

        def recorded_fsync(file: int):
            add("fsync", os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
            fsync(file)

        os.fsync = recorded_fsync
        sys.addaudithook(hook)
        action()
        add("end", inside)
        Path("events.pkl").write_bytes(pickle.dumps(events))

    assert finish(fork(recorded, folder)) == 0, (folder / "output.txt").read_text()
    return pickle.loads((folder / "events.pkl").read_bytes())


class Names:
    """What the calls so far did to the names of a folder: those on the disk, and what has been done to them since."""

    def __init__(self, disk: Disk):
        self.inodes = {name: index for index, name in enumerate(disk)}  # as programs see them
        self.synced, self.pending = dict(self.inodes), []
        self.content = {self.inodes[name]: content for name, content in disk.items()}  # as last synced
        self.next_inode = len(disk)

    def take(self, kind: str, names: tuple, disk: Disk):
        name, inodes = names[0], self.inodes
        if kind == "create" and name not in inodes:
            self.change({name: self.next_inode})
            self.content[self.next_inode] = b""
            self.next_inode += 1
        elif kind == "os.rename" and name in inodes:
            self.change({name: None, names[1]: inodes[name]})
        elif kind == "os.remove" and name in inodes:
            self.change({name: None})
        elif kind == "fsync" and name == "":
            self.synced, self.pending = dict(inodes), []
        elif kind == "fsync":
            self.content[inodes[name]] = disk[name]

    def change(self, changed: dict[str, int | None]):
        self.pending.append(changed)
        self.inodes = changed_names(self.inodes, changed)

    def left(self, disk: Disk, in_order: bool, rng: random.Random) -> Disk:
        """Returns what a power failure may leave while programs see `disk`."""
        count = rng.randint(0, len(self.pending))
        chosen = range(count) if in_order else sorted(rng.sample(range(len(self.pending)), count))
        names = self.synced
        for index in chosen:
            names = changed_names(names, self.pending[index])
        seen = {inode: disk[name] for name, inode in self.inodes.items()}
        found = {}
        for name, inode in names.items():
            synced = self.content[inode]
            now = seen.get(inode, synced)
            cut = rng.randint(0, len(now))
            found[name] = rng.choice([synced, now, now[:cut], now[:cut] + bytes(len(now) - cut)]) if now != synced else now
        return found


def changed_names(names: dict[str, int], changed: dict[str, int | None]) -> dict[str, int]:
    return {name: inode for name, inode in (names | changed).items() if inode is not None}


def disks_of(events: list, before: Disk, in_order: bool, number: int, seed: int) -> list[Disk]:
    """Returns disks that differ in what is LOOKED_INTO, `number` or fewer for each call."""
    rng, names, disks = random.Random(seed), Names(before), {}
    for kind, arguments, disk in events:
        for _ in range(number):
            left = names.left(disk, in_order, rng)
            counted = {name: hashlib.sha256(content).hexdigest() for name, content in left.items() if name in LOOKED_INTO}
            disks[str(sorted(counted.items()))] = left
        names.take(kind, arguments, disk)
    return list(disks.values())


LOOKED_INTO = ("model.safetensors", "training_state.pt", "config.json", "tokenizer.json")  # the log has any contents anyway
LOOKED_INTO += (
    "meta.json",
    *(f"{name}.npy" for name in ("train", "val", "train_documents", "train_blocks", "train_checksums")),
)


def put(disk: Disk, folder: Path):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in disk.items():
        (folder / name).write_bytes(content)


def check_training(disk: Disk, folder: Path, whole: dict) -> str:
    """Returns what the same command makes of a disk."""
    put(disk, folder / "models/owl")
    try:
        start = go_on(folder)
        found = result_of(folder)
    except (AssertionError, FileNotFoundError) as refused:
        return f"another end: {str(refused).splitlines()[-1]}"
    different = [name for name in whole if name != "log" and found[name] != whole[name]]
    rows = [row for row in found["log"] if None not in (*row, *row.values())]  # one may be cut where the run had ended
    if any(row not in whole["log"] for row in rows):
        different.append("log")
    return f"another end: {', '.join(different)}" if different else f"goes on from {start}"


def tokens_of(folder: Path) -> bytes:
    tokens = load_token_files(folder, Tokenizer.load(folder / "tokenizer.json"))
    for block in range(len(tokens.blocks) - 1):
        tokens.check("train", block)
    return tokens.train.tobytes() + tokens.val_ids(None).tobytes() + tokens.documents.tobytes()


def check_tokens(disk: Disk, folder: Path, old: bytes, new: bytes) -> str:
    put(disk, folder / "left")
    try:
        found = tokens_of(folder / "left")
    except (UserError, OSError) as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"several lines: {error}"
    return {old: "the old tokens", new: "the new tokens"}.get(found, "others")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=30, help="disks to draw before each call; equal ones count once [30]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_tokens(folder)
        assert finish(fork_training(folder)) == 0
        whole = result_of(folder)
        shutil.rmtree(folder / "models")
        events = record(train_here, folder, "models/owl")
        for in_order in (True, False):
            disks = disks_of(events, {}, in_order, options.states, options.seed)
            bad += report("training", events, in_order, Counter(check_training(disk, folder, whole) for disk in disks))
        old = tokens_of(folder / "tokens")
        before = {path.name: path.read_bytes() for path in (folder / "tokens").iterdir()}
        events = record(lambda: tokenize(seed=2), folder, "tokens")
        new = tokens_of(folder / "tokens")
        assert old != new
        for in_order in (True, False):
            disks = disks_of(events, before, in_order, options.states, options.seed)
            bad += report("tokens", events, in_order, Counter(check_tokens(disk, folder, old, new) for disk in disks))
    sys.exit(bad > 0)


def report(what: str, events: list, in_order: bool, counts: Counter) -> int:
    """Prints a line and returns how many disks were not as they have to be."""
    order = "in order" if in_order else "any"
    print(f"{what}, {len(events)} calls, names {order}: {counts.total()} disks: {dict(sorted(counts.items()))}", flush=True)
    return sum(number for name, number in counts.items() if name.startswith(("another end", "others", "several lines")))


if __name__ == "__main__":
    main()
