"""Measures the tokenizer beside its peers: python tests/benchmarks/tokenizer.py --data stories.txt chinese.txt

Needs pip install -r tests/benchmarks/requirements.txt. Training runs are processes of their own; encoders share one for each
text, on one thread, and so do decoders. Everybody takes turns within a run, and the tables show medians over the runs. What is
timed begins after imports and reading and ends with the result. Everybody gets the documents of the file as a list of str, or
the file itself where that is the documented way (ours, sentencepiece). Results are compared before anything is timed: merges
with rustbpe's, ids with tiktoken's; an encoder with other ids is left out, and the reason is said.

Encoders are timed with a tokenizer that was just loaded ("first", as a corpus is read once) and with the same one on the same
text again ("warm": most keep what they met).
"""

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHUNK_BYTES = 1 << 20
PEAK_UNIT = 1024  # of ru_maxrss on Linux, in bytes


def read_documents(path: str) -> list[str]:
    from alilama import _bpe

    return [text.decode("utf-8", "replace") for text in _bpe.split_documents(Path(path).read_bytes()) if text]


# ---- training: each a process of its own ----


def train_alilama(data: str, vocab_size: int, threads: int, out: str) -> float:
    from alilama import Tokenizer

    start = time.perf_counter()
    tokenizer = Tokenizer.train(data, vocab_size, num_threads=threads)
    seconds = time.perf_counter() - start
    tokenizer.save(out)
    return seconds


def train_rustbpe(data: str, vocab_size: int, threads: int, out: str) -> float:
    import rustbpe

    from alilama.data.tokenizer import PATTERNS

    documents, tokenizer = read_documents(data), rustbpe.Tokenizer()
    start = time.perf_counter()
    tokenizer.train_from_iterator(iter(documents), vocab_size - 1, pattern=PATTERNS["gpt4"])
    seconds = time.perf_counter() - start
    Path(out).write_text(json.dumps([bytes(token).hex() for token, _ in tokenizer.get_mergeable_ranks()]), "utf-8")
    return seconds


def train_sentencepiece(data: str, vocab_size: int, threads: int, out: str) -> float:
    import sentencepiece

    start = time.perf_counter()
    sentencepiece.SentencePieceTrainer.train(
        input=data,
        model_prefix=out,
        model_type="bpe",
        vocab_size=vocab_size,
        num_threads=threads,
        byte_fallback=True,
        character_coverage=1.0,
        max_sentence_length=1 << 24,
        minloglevel=2,
    )
    return time.perf_counter() - start


def train_tokenizers(data: str, vocab_size: int, threads: int, out: str) -> float:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from alilama.data.tokenizer import PATTERNS

    documents, tokenizer = read_documents(data), Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERNS["gpt4"]), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    start = time.perf_counter()
    tokenizer.train_from_iterator(documents, trainer)
    return time.perf_counter() - start


def train_alilama_gpt2(data: str, vocab_size: int, threads: int, out: str) -> float:
    from alilama import Tokenizer

    start = time.perf_counter()
    Tokenizer.train(data, vocab_size, pattern="gpt2", num_threads=threads)
    return time.perf_counter() - start


def train_gigatoken(data: str, vocab_size: int, threads: int, out: str) -> float:
    """It knows GPT-2's pattern alone, and its merges of equal count come in another order."""
    from gigatoken.gigatoken_rs import train_bpe

    start = time.perf_counter()
    train_bpe(data, vocab_size - 1, [])
    return time.perf_counter() - start


TRAINERS = {
    "alilama": train_alilama,
    "alilama-gpt2": train_alilama_gpt2,
    "gigatoken": train_gigatoken,
    "rustbpe": train_rustbpe,
    "sentencepiece": train_sentencepiece,
    "tokenizers": train_tokenizers,
}
COMPARED_WITH = {"gigatoken": "alilama-gpt2"}  # the others with "alilama"


def measure_training(peer: str, data: str, vocab_size: int, threads: int, out: Path) -> tuple[float, int]:
    """Returns the seconds of one training run in a new process, and the bytes that the process took at its peak."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    job = json.dumps([peer, data, vocab_size, threads, str(out)])
    run = subprocess.run([sys.executable, __file__, "--job", job], env=environment, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(run.stdout.splitlines()[-1])
    return seconds, peak


def do_job(job: str):
    peer, *arguments = json.loads(job)
    if peer == "encoders":
        return compare_encoders(*arguments)
    seconds = TRAINERS[peer](*arguments)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT]))


def check_merges(ours: Path, theirs: Path):
    from alilama import Tokenizer

    tokenizer = Tokenizer.load(ours)
    tokens = [tokenizer.token_bytes(id).hex() for id in range(256 + len(tokenizer.merges))]
    assert tokens == json.loads(theirs.read_text("utf-8")), "alilama and rustbpe learned different merges"


def compare_training(data: str, vocab_size: int, threads: int, runs: int, folder: Path, peers: list[str]):
    num_bytes = os.path.getsize(data)
    print(f"\nTraining on {num_bytes / 1e6:.1f} MB, {vocab_size:,} tokens, {threads} thread(s), median of {runs}")
    if "rustbpe" in peers:
        for peer in ("alilama", "rustbpe"):
            measure_training(peer, data, vocab_size, threads, folder / peer)
        check_merges(folder / "alilama", folder / "rustbpe")
        print("  merges equal rustbpe's")
    figures: dict[str, list[tuple[float, int]]] = {peer: [] for peer in peers}
    for _ in range(runs):
        for peer in peers:
            figures[peer].append(measure_training(peer, data, vocab_size, threads, folder / peer))
    speeds = {peer: num_bytes / 1e6 / statistics.median(seconds for seconds, _ in values) for peer, values in figures.items()}
    for peer, speed in speeds.items():
        ours = speeds.get(COMPARED_WITH.get(peer), speeds["alilama"])
        peak = max(peak for _, peak in figures[peer])
        print(f"  {peer:16} {speed:8.1f} MB/s   ours is {ours / speed:6.1f} times as fast   peak {peak / 1e6:7.0f} MB")


# ---- encoding and decoding: one process, one thread, the same chunks of text ----


def read_chunks(data: str, max_bytes: int) -> list[str]:
    """Returns the first `max_bytes` of a file in chunks of whole lines, as nobody's limits on one text are the matter here."""
    with open(data, "rb") as file:
        text = file.read(max_bytes)
    chunks, start = [], 0
    while start < len(text):
        end = text.find(b"\n", min(len(text), start + CHUNK_BYTES)) + 1 or len(text)
        chunks.append(text[start:end].decode("utf-8", "replace"))
        start = end
    return chunks


def compare(title: str, runs: int, num_bytes: int, work: dict[str, Callable[[], object]], references: list[str]):
    """Times each of `work` `runs` times, in turns, and prints MB/s and the ratio of the first to the `references`."""
    print(f"\n{title}, {num_bytes / 1e6:.1f} MB, one thread, median of {runs}")
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, function in work.items():
            start = time.perf_counter()
            result = function()
            seconds[name].append(time.perf_counter() - start)
            del result
    speed = {name: num_bytes / 1e6 / statistics.median(values) for name, values in seconds.items()}
    ours = next(iter(work))
    for name in work:
        note = f"   ours is {speed[ours] / speed[name]:6.2f} times as fast" if name in references else ""
        print(f"  {name:28} {speed[name]:8.1f} MB/s{note}")


# GPT-4's pattern without possessive quantifiers, which gigatoken and splintr cannot read; it cuts the same.
PLAIN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|"
    r"\s+(?!\S)|\s+"
)


def load_alilama(path: Path) -> Callable:
    from alilama import Tokenizer

    return Tokenizer.load(path).encode_to_numpy


def load_alilama_to_lists(path: Path) -> Callable:
    from alilama import Tokenizer

    return Tokenizer.load(path).encode_ordinary


def load_tiktoken(path: Path) -> Callable:
    from alilama import Tokenizer

    return Tokenizer.load(path).to_tiktoken().encode_ordinary


def load_gigatoken(path: Path) -> Callable:
    import gigatoken

    return gigatoken.Tokenizer(str(in_plain_pattern(path))).encode


def load_fastokens(path: Path) -> Callable:
    import numpy as np
    from fastokens._native import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: np.frombuffer(tokenizer.encode_batch_flat([text])[0], np.uint32)


def load_splintr(path: Path) -> Callable:
    import numpy as np
    import splintr

    tokenizer = splintr.from_json(str(in_plain_pattern(path)))
    return lambda text: np.frombuffer(tokenizer.encode_flat(text), np.uint32)


def load_tokie(path: Path) -> Callable:
    import tokie

    tokenizer = tokie.Tokenizer.from_json(str(path))
    return lambda text: tokenizer.encode(text, False).ids


def load_quicktok(path: Path) -> Callable:
    import quicktok

    if not path.with_name("ours.enc").exists():
        with contextlib.redirect_stdout(io.StringIO()):
            quicktok.import_tokenizer(str(path), "ours", str(path.parent))
    tokenizer = quicktok.Tokenizer("ours", str(path.parent))
    return lambda text: tokenizer.encode_batch([text], threads=1)[0]


def load_tokenizers(path: Path) -> Callable:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


# Each loads a tokenizer.json and returns the fastest way it has from a str to ids, in an array where there is one.
ENCODERS = {
    "alilama": load_alilama,
    "alilama, to lists": load_alilama_to_lists,
    "gigatoken": load_gigatoken,
    "fastokens": load_fastokens,
    "splintr": load_splintr,
    "quicktok": load_quicktok,
    "tokie": load_tokie,
    "tiktoken": load_tiktoken,
    "tokenizers": load_tokenizers,
}
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "FASTOKENS_BPE_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def in_plain_pattern(path: Path) -> Path:
    plain = path.with_name("plain.json")
    if not plain.exists():
        content = json.loads(path.read_text("utf-8"))
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = PLAIN_PATTERN
        plain.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return plain


def find_encoders(path: Path, chunks: list[str], names: list[str]) -> list[str]:
    """Returns the encoders whose ids are tiktoken's, and says which are left out and why."""
    reference = load_tiktoken(path)
    expected, found = [reference(chunk) for chunk in chunks], []
    for name in names:
        try:
            encode = ENCODERS[name](path)
        except ImportError as error:
            print(f"  {name} is left out: {error}")
            continue
        except Exception as error:
            print(f"  {name} is left out: it cannot read the tokenizer: {str(error).splitlines()[0][:100]}")
            continue
        wrong = sum([int(id) for id in encode(chunk)] != ids for chunk, ids in zip(chunks, expected, strict=True))
        if wrong:
            print(f"  {name} is left out: its ids differ in {wrong} of {len(chunks)} chunks")
        else:
            found.append(name)
    return found


def compare_encoders(data: str, path: str, runs: int, max_bytes: int, names: list[str]):
    """The process that times them."""
    # Peers make a special token of one in the text, each in its own way.
    chunks = [chunk.replace("<|endoftext|>", "") for chunk in read_chunks(data, max_bytes)]
    num_bytes = sum(len(chunk.encode()) for chunk in chunks)
    print(f"\nEncoding {Path(data).name}, {num_bytes / 1e6:.1f} MB, one thread, MB/s, median of {runs}")
    found = find_encoders(Path(path), chunks, names)
    seconds = {name: ([], []) for name in found}
    for _ in range(runs):
        for name in found:
            encode = ENCODERS[name](Path(path))
            for times in seconds[name]:
                start = time.perf_counter()
                result = [encode(chunk) for chunk in chunks]
                times.append(time.perf_counter() - start)
                del result
    speeds = {name: [num_bytes / 1e6 / statistics.median(part) for part in times] for name, times in seconds.items()}
    for name, (first, warm) in speeds.items():
        ratios = f"   ours is {speeds['alilama'][0] / first:6.2f} and {speeds['alilama'][1] / warm:6.2f} times as fast"
        print(f"  {name:18} first {first:8.1f}   warm {warm:8.1f}{ratios if name != 'alilama' else ''}", flush=True)


def compare_encoding(data: str, tokenizer_file: Path, runs: int, max_bytes: int, names: list[str]):
    job = json.dumps(["encoders", data, str(tokenizer_file), runs, max_bytes, names])
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, "--job", job], env=environment, check=True)


def compare_decoding(data: str, tokenizer_file: Path, runs: int, max_bytes: int, folder: Path):
    from alilama import Tokenizer

    os.environ["QUICKTOK_DATA"] = str(folder)
    import quicktok

    ours = Tokenizer.load(tokenizer_file)
    tik = ours.to_tiktoken()
    quicktok.import_tokenizer(str(tokenizer_file), "ours")
    quick = quicktok.get_encoding("ours")
    chunks = read_chunks(data, max_bytes)
    num_bytes = sum(len(chunk.encode()) for chunk in chunks)
    ids = [ours.encode_to_numpy(chunk) for chunk in chunks]
    lists = [chunk.tolist() for chunk in ids]
    compare(
        "Decoding to str",
        runs,
        num_bytes,
        {
            "alilama decode (array)": lambda: [ours.decode(chunk) for chunk in ids],
            "alilama decode (list)": lambda: [ours.decode(chunk) for chunk in lists],
            "tiktoken decode": lambda: [tik.decode(chunk) for chunk in lists],
            "quicktok decode": lambda: [quick.decode(chunk) for chunk in lists],
        },
        ["alilama decode (list)", "tiktoken decode", "quicktok decode"],
    )


# ---- the whole way of tokenize_data.py ----


def measure_script(data: str, vocab_size: int, folder: Path, val_fraction: float = 0.05) -> tuple[float, int]:
    """Returns the seconds that tokenize_data.py takes from start to end, and its peak memory in bytes."""
    command = [
        sys.executable,
        str(ROOT / "tokenize_data.py"),
        f"--data_files={data}",
        f"--vocab_size={vocab_size}",
        f"--tokens_dir={folder / 'tokens'}",
        f"--val_fraction={val_fraction}",
    ]
    start = time.perf_counter()
    # from a small process, for ru_maxrss counts what the parent took when it forked
    watch = (
        "import os, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    run = subprocess.run([sys.executable, "-S", "-c", watch, *command], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return seconds, int(run.stdout) * PEAK_UNIT


def compare_scripts(data: str, vocab_size: int, runs: int, folder: Path):
    num_bytes = os.path.getsize(data)
    figures = [measure_script(data, vocab_size, folder) for _ in range(runs)]
    seconds = statistics.median(seconds for seconds, _ in figures)
    peak = max(peak for _, peak in figures)
    print(f"\ntokenize_data.py on {num_bytes / 1e6:.0f} MB, {vocab_size:,} tokens, whole process, median of {runs}")
    print(f"  {seconds:.2f} s, {num_bytes / 1e6 / seconds:.0f} MB/s, peak {peak / 1e6:.0f} MB")


def show_growth(data: str, folder: Path):
    """Shows how time and memory of training grow with the size of the text, of the vocabulary, and with threads."""
    print("\nGrowth of training, one run each")
    num_bytes, part = os.path.getsize(data), folder / "part.txt"
    for share in (0.125, 0.25, 0.5, 1):
        with open(data, "rb") as file:
            part.write_bytes(file.read(int(num_bytes * share)))
        seconds, peak = measure_training("alilama", str(part), 4096, 2, folder / "growth")
        print(f"  {num_bytes * share / 1e6:8.1f} MB, 4,096 tokens, 2 threads: {seconds:6.3f} s, peak {peak / 1e6:.0f} MB")
    for vocab_size in (512, 4096, 16384, 65536):
        try:
            seconds, peak = measure_training("alilama", data, vocab_size, 2, folder / "growth")
        except subprocess.CalledProcessError as error:
            print(f"  {vocab_size:6,} tokens: {error.stderr.splitlines()[-1]}")
            continue
        print(f"  {num_bytes / 1e6:8.1f} MB, {vocab_size:6,} tokens, 2 threads: {seconds:6.3f} s, peak {peak / 1e6:.0f} MB")
    for threads in (1, 2, 4):
        seconds, peak = measure_training("alilama", data, 4096, threads, folder / "growth")
        print(f"  {num_bytes / 1e6:8.1f} MB, 4,096 tokens, {threads} thread(s): {seconds:6.3f} s, peak {peak / 1e6:.0f} MB")


PARTS = ("training", "encoding", "decoding", "script", "growth")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="text files; lines that are <|endoftext|> separate their documents")
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", default="2,1", help="for training, such as 2,1")
    parser.add_argument("--encode_bytes", type=int, default=20_000_000, help="how much of a file is encoded")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--peers", default=",".join(TRAINERS), help="trainers to compare")
    parser.add_argument("--encoders", default=";".join(ENCODERS), help="encoders to compare, with ; between them")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        return do_job(arguments.job)
    if not arguments.data:
        parser.error("--data is missing")
    for data in arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            measure(data, arguments, Path(folder))


def measure(data: str, arguments: argparse.Namespace, folder: Path):
    parts, tokenizer_file = arguments.parts.split(","), folder / "tokenizer.json"
    if "training" in parts:
        peers = list(dict.fromkeys(["alilama", *arguments.peers.split(",")]))
        for threads in map(int, arguments.threads.split(",")):
            compare_training(data, arguments.vocab_size, threads, arguments.runs, folder, peers)
    if "encoding" in parts or "decoding" in parts:
        measure_training("alilama", data, arguments.vocab_size, 2, tokenizer_file)
    if "encoding" in parts:
        names = list(dict.fromkeys(["alilama", *arguments.encoders.split(";")]))
        compare_encoding(data, tokenizer_file, arguments.runs, arguments.encode_bytes, names)
    if "decoding" in parts:
        compare_decoding(data, tokenizer_file, arguments.runs, arguments.encode_bytes, folder)
    if "script" in parts:
        compare_scripts(data, arguments.vocab_size, arguments.runs, folder)
    if "growth" in parts:
        show_growth(data, folder)


if __name__ == "__main__":
    main()
