"""Damages files of every kind and loads them as the scripts do: python tests/faults/damage.py --files 100000

Bits are flipped, bytes changed, parts cut out, swapped, doubled, zeroed or cut off, and in JSON and settings values replaced
by what nobody expects. Counted is what comes of it:

    as before   the same comes out
    one line    a UserError or OSError, which a script ends with in one line, or a note of one line, before anything is computed
    later       the same, but only when what is damaged is used
    other       something else comes out, and nothing says so; where a format has no checksum this cannot be otherwise
    traceback, several lines, hang, crash: what must not be; such files are kept in --keep
"""

import argparse
import csv
import gzip
import io
import json
import lzma
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from forks import ROOT, SETTINGS, STEPS, arguments, comparable, finish, fork_training, make_tokens
from helpers import write_prose

from alilama.common.config import Config, load_config
from alilama.common.errors import UserError, is_out_of_memory
from alilama.data.batches import TrainingWindows
from alilama.data.opening import check_text
from alilama.data.text import find_sources, read_blocks
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_meta, load_token_files
from alilama.model.folder import load_model, load_shape
from alilama.model.model import Model
from alilama.training.log import COLUMNS, Log, best_evaluation, is_memorizing, read_log
from alilama.training.optim import make_optimizers
from alilama.training.resume import Run, load_state, save_state
from alilama.training.step import Step

CHUNK, SECONDS = 250, 20  # files for a child, and how long one may take
BAD = ("traceback", "several lines", "hang", "crash")
HOSTILE = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    2**70,
    "",
    "\ud800",
    "\0",
    "x" * 5000,
    [],
    {},
    [[[]]],
    {"a": 1},
    -0.5,
    1,
    1.5,
]
HOSTILE_TEXT = [
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "None",
    "True",
    "0x10",
    "١٢",
    "1_0",
    "\ud800",
    "\0",
    "..",
    "/",
    "9" * 5000,
    "~",
]
HOSTILE_TEXT += [
    "1e9",
    "16777215",
    "-0.0",
    "[]",
    "adamw",
    " 8",
    "8 ",
    "8.5",
    "<script>",
    "$(id)",
    "%s%n",
    "nowhere/*",
    "hf://",
    "1e-9",
]


# ---- what is damaged, and how each is loaded: a function of the folder that returns what came out ----


def load_folder(folder: Path, note: Callable[[str], None]) -> object:
    model, tokenizer = load_model(folder / "models/owl")
    ids = tokenizer.encode_ordinary("Once upon a time, Zoë saw 12 ducks…")
    return (
        comparable(model.state_dict()),
        str(model.config),
        tokenizer.sha256,
        ids,
        tokenizer.decode(range(tokenizer.vocab_size)),
    )


def load_run(folder: Path, note: Callable[[str], None]) -> object:
    config = replace(settings(), models_dir=str(folder / "models"))
    run, model = Run(config, load_meta(folder / "tokens"), STEPS), Model(load_shape(folder / "models/owl"))
    step = Step(model, make_optimizers(model, config), config.grad_clip, scales_loss=False)
    run.go_on(step)
    return run.step, run.num_steps, run.best_loss, comparable(step.state_dict()), torch.get_rng_state().tolist()


@cache
def settings() -> Config:
    return load_config(ROOT / "TRAINCONFIG.py", arguments(), "")


def load_tokens(folder: Path, note: Callable[[str], None]) -> object:
    tokens = load_token_files(folder / "tokens", Tokenizer.load(folder / "tokens/tokenizer.json"))
    note("loaded")
    batches = TrainingWindows(tokens, 64, 50, 1)
    parts = [batches.batch(step).tobytes() for step in range(batches.windows_per_epoch // 50 + 1)]
    return parts, tokens.val_ids(None).tobytes(), tokens.meta.documents, tokens.meta.bytes, tokens.meta.text


def load_log(folder: Path, note: Callable[[str], None]) -> object:
    """As a run does that goes on at step 8: what is damaged is set aside, or a row is left out."""
    said = []
    log = Log(folder / "models/owl", settings(), 8, said.append)
    log.write(dict.fromkeys(COLUMNS, 9))
    log.close()
    if said:
        raise UserError("\n".join(said))
    rows = read_log(folder / "models/owl/log.csv")
    best_evaluation(rows), is_memorizing(rows)
    return rows


def load_settings(folder: Path, note: Callable[[str], None]) -> object:
    config = load_config(ROOT / "TRAINCONFIG.py", json.loads((folder / "argv.json").read_text()), "")
    return str(config)


def load_text(name: str) -> Callable:
    def load(folder: Path, note: Callable[[str], None]) -> object:
        sources = find_sources(str(folder / name))
        for source in sources:
            check_text(source.path)
        note("loaded")
        return [(block.text, str(block.conversations)) for block in read_blocks(sources, "gpt4")]

    return load


STORIES = write_prose(40, seed=2).split("\n<|endoftext|>\n")


def write_texts(folder: Path) -> list[str]:
    """Writes the same stories in every form that is read; returns the names of the files."""
    lines = "".join(json.dumps({"id": i, "text": story}) + "\n" for i, story in enumerate(STORIES)).encode()
    asked = "".join(
        json.dumps({"messages": [{"role": "user", "content": "Tell!"}, {"role": "assistant", "content": story}]}) + "\n"
        for story in STORIES
    ).encode()
    plain = "\n<|endoftext|>\n".join(STORIES).encode()
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["id", "text"], *enumerate(STORIES)])
    files = {
        "a.txt": plain,
        "a.jsonl": lines,
        "asked.jsonl": asked,
        "a.json": json.dumps([{"text": story} for story in STORIES]).encode(),
        "a.csv": table.getvalue().encode(),
        "a.txt.gz": gzip.compress(plain),
        "a.txt.xz": lzma.compress(plain),
    }
    try:
        from backports import zstd

        files["a.jsonl.zst"] = zstd.compress(lines)
    except ImportError:
        print("without .zst, for which there is no backports.zstd", flush=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    pq.write_table(pa.table({"id": range(len(STORIES)), "text": STORIES}), folder / "a.parquet", row_group_size=15)
    pq.write_table(
        pa.table({"text": STORIES}), folder / "b.parquet", compression="zstd", use_dictionary=False, write_page_checksum=True
    )
    return [*files, "a.parquet", "b.parquet"]


# ---- the damage ----


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Returns content with something done to it."""
    data, size = bytearray(content), len(content)
    start = rng.randrange(size)
    stop = min(size, start + int(rng.expovariate(1 / 40)) + 1)
    kind = rng.randrange(10)
    if kind < 3:
        for _ in range(1 if kind == 0 else rng.randint(2, 30)):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        del data[start:]
    elif kind == 4:
        data[start:] = bytes(size - start)  # as after a power failure
    elif kind == 5:
        del data[start:stop]
    elif kind == 6:
        data[start:stop] = rng.randbytes(stop - start)
    elif kind == 7:
        data[start:start] = data[rng.randrange(size) :][: stop - start]
    elif kind == 8:
        other = rng.randrange(size)
        data[start:stop], data[other : other + stop - start] = data[other : other + stop - start], data[start:stop]
    else:
        data[start] = rng.choice(b'\0\xff"{}[],:-9\n\\ ')
    return bytes(data)


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Returns JSON with one value or name in it replaced, removed or doubled; otherwise it stays JSON."""
    tree = json.loads(content)
    places = []

    def walk(node: object):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    large = [place for place in places if len(place[0]) < 60]  # the settings, not only the thousands of tokens
    node, key = rng.choice(large if rng.random() < 0.7 and large else places)
    kind = rng.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(["", "a", "\ud800", "<|endoftext|>"])] = node.pop(key)
    elif kind == 2:
        node[key] = rng.choice(places)[0]
        try:
            return json.dumps(tree).encode()
        except (ValueError, RecursionError):  # it holds itself
            return b"[" * 100_000
    else:
        node[key] = rng.choice(HOSTILE)
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def damage_settings(content: bytes, rng: random.Random) -> bytes:
    argv = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(list(SETTINGS))
        argv.append(f"--{name}={rng.choice(HOSTILE_TEXT)}" if rng.random() < 0.8 else rng.choice(HOSTILE_TEXT))
    return json.dumps(argv).encode()


def damaged(path: Path, content: bytes, rng: random.Random) -> bytes:
    if path.name == "argv.json":
        return damage_settings(content, rng)
    if path.suffix == ".json" and rng.random() < 0.5:
        return damage_json(content, rng)
    return damage_bytes(content, rng)


# ---- what comes of it ----


def outcome(load: Callable, folder: Path, expected: object) -> tuple[str, str]:
    """Returns the name of what came of loading, and what was said."""
    reached = []
    try:
        found = load(folder, reached.append)
    except BaseException as error:
        said = f"Error: {error}"
        if isinstance(error, UserError | OSError) or is_out_of_memory(error):
            return ("several lines" if len(said.splitlines()) > 1 else "later" if reached else "one line"), said
        return "traceback", traceback.format_exc()
    return ("as before" if found == expected else "other"), ""


def try_chunk(kind: str, seeds: range, original: Path, scratch: Path, pipe: int):
    """Tries the damages of `seeds`, each in the one copy of the folder; writes `seed outcome` lines to the pipe."""
    path, load = Path(kind), KINDS[kind]
    content, names = (original / path).read_bytes(), (original / path).parent
    before = {p: p.read_bytes() for p in names.iterdir() if p.is_file()}
    expected = load(scratch, lambda reached: None)
    for seed in seeds:
        for p in (scratch / path).parent.iterdir():
            if p.is_file() and p.name not in {known.name for known in before}:
                p.unlink()
        for p, whole in before.items():
            if path.name == "log.csv" or p.name == path.name:
                (scratch / path).with_name(p.name).write_bytes(whole)
        (scratch / path).write_bytes(damaged(path, content, random.Random(f"{kind} {seed}")))
        signal.alarm(SECONDS)
        name, said = outcome(load, scratch, expected)
        signal.alarm(0)
        os.write(pipe, (json.dumps([seed, name, said]) + "\n").encode())


def try_kind(kind: str, seeds: range, original: Path, keep: Path) -> tuple[Counter, dict[str, str]]:
    """Returns how often what came of damaged files of one kind, and the first example of everything that must not be."""
    counts, examples, seeds = Counter(), {}, list(seeds)
    while seeds:
        chunk = seeds[:CHUNK]
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(shutil.copytree(original, Path(folder) / "copy"))
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                try:
                    try_chunk(kind, chunk, original, scratch, writing)
                except BaseException:
                    traceback.print_exc(file=sys.__stderr__)
                finally:
                    os._exit(0)
            os.close(writing)
            with open(reading, encoding="utf-8") as lines:
                results = [json.loads(line) for line in lines]
            code = finish(pid)
            done = [seed for seed, *_ in results]
            if code < 0:
                results.append((chunk[len(done)], "hang" if code == -signal.SIGALRM else "crash", f"signal {-code}"))
                done.append(chunk[len(done)])
            assert done, "a child tried nothing"
        for seed, name, said in results:
            counts[name] += 1
            place = f"{name}: {said.splitlines()[-1][:100] if said else ''}" if name in BAD else ""
            if place and place not in examples:
                examples[place] = said
                keep.mkdir(parents=True, exist_ok=True)
                content = (original / kind).read_bytes()
                (keep / f"{Path(kind).name}.{seed}.{name}").write_bytes(
                    damaged(Path(kind), content, random.Random(f"{kind} {seed}"))
                )
        seeds = seeds[len(done) :]
    return counts, examples


TOKEN_FILES = ["train", "val", "train_documents", "train_blocks", "train_checksums", "val_checksums"]
KINDS: dict[str, Callable] = {
    "models/owl/model.safetensors": load_folder,
    "models/owl/config.json": load_folder,
    "models/owl/tokenizer.json": load_folder,
    "models/owl/training_state.pt": load_run,
    "models/owl/log.csv": load_log,
    **{f"tokens/{name}.npy": load_tokens for name in TOKEN_FILES},
    "tokens/meta.json": load_tokens,
    "tokens/tokenizer.json": load_tokens,
    "argv.json": load_settings,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="how many in all, the same number of each kind [100000]")
    parser.add_argument("--seed", type=int, default=0, help="the first of the numbers that damages are made from [0]")
    parser.add_argument("--kinds", nargs="+", help="only those in whose path one of these is")
    parser.add_argument("--keep", type=Path, default=Path("damaged"), help="folder for files that must not be [damaged]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        original = Path(scratch)
        make_tokens(original)
        assert finish(fork_training(original)) == 0
        save_state(original / "models/owl", load_state(original / "models/owl") | {"step": STEPS - 2})  # so that it can go on
        (original / "argv.json").write_text(json.dumps(arguments()))
        (original / "texts").mkdir()
        for name in write_texts(original / "texts"):
            KINDS[f"texts/{name}"] = load_text(f"texts/{name}")
        chosen = [kind for kind in KINDS if not options.kinds or any(part in kind for part in options.kinds)]
        each = -(-options.files // len(chosen))
        total, all_examples = Counter(), defaultdict(dict)
        names = ["as before", "one line", "later", "other", *BAD]
        print(f"| {'file':32} | files | " + " | ".join(names) + " |", flush=True)
        for kind in chosen:
            counts, all_examples[kind] = try_kind(kind, range(options.seed, options.seed + each), original, options.keep)
            total += counts
            print(f"| {kind:32} | {each:,} | " + " | ".join(f"{counts[name]:,}" for name in names) + " |", flush=True)
        print(f"| {'all':32} | {total.total():,} | " + " | ".join(f"{total[name]:,}" for name in names) + " |")
        for kind, examples in all_examples.items():
            for example in examples.values():
                print(f"\n{kind}\n{example}")
    sys.exit(any(total[name] for name in BAD))


if __name__ == "__main__":
    main()
