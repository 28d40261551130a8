"""Runs exported models by a real llama.cpp: python tests/benchmarks/llama_cpp.py --data valid.txt train.txt

Needs pip install llama-cpp-python==0.3.36 (it is built from its source, in 8 minutes on two cores), gguf, and the packages of
tests/benchmarks/requirements.txt. Compares llama.cpp with Alilama: the ids of a megabyte of each file, of Python's own sources
and of text in many scripts; which characters are cut in another way; and for each model folder, for one with 12 heads that is
trained here, and for a few odd shapes, in every precision: the tokens that are written with temperature 0, the logits below and
beyond the trained length, and tokens/s. Logits are also compared with those of the weights as they are in the file and with
GELU as llama.cpp computes it: what then remains is how it rounds on the way.
"""

import argparse
import statistics
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import gguf
import numpy as np
import torch
import torch.nn.functional as F

sys.path.append(sys.path.pop(0))  # this folder comes last, since this file has the name of the package
from exactness import kinds_of_text, make_blocks
from llama_cpp import GGML_TYPE_F16, GGML_TYPE_F32, Llama

from alilama.data.tokenizer import Tokenizer
from alilama.export.gguf import FILE_TYPES, PRE_TOKENIZERS, write_gguf
from alilama.model.folder import PREFIX, find_pretrained, load_model, save_description, save_weights
from alilama.model.model import Model, ModelConfig
from alilama.writing.streams import generate_batch

MEGABYTE = 1_000_000
TWELVE_HEADS = {"d_model": 192, "blocks": 4, "num_heads": 12}
ODD_SHAPES = [(30, 2, 3), (14, 2, 7), (25, 1, 5), (3, 1, 1), (96, 2, 1), (320, 1, 20), (32, 512, 2)]  # d_model, blocks, heads
PROMPT_WORDS, NUM_PROMPTS = 6, 10
TURNS = 5


def open_llama(file: Path, length: int, **options) -> Llama:
    """Returns a model that keeps its keys and values in float32 and its logits at all positions."""
    options = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32} | options
    threads = torch.get_num_threads()
    return Llama(str(file), n_ctx=length, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False, **options)


def logits_of(llama: Llama, ids: Sequence[int]) -> np.ndarray:
    """Returns llama.cpp's logits at every position, (T, V)."""
    llama.reset()
    llama.eval(ids)
    return llama.scores[: len(ids)]


# ---- ids ----


def compare_ids(llama: Llama, tokenizer: Tokenizer, name: str, text: str):
    ours, theirs = tokenizer.encode_ordinary(text), llama.tokenize(text.encode(), add_bos=False)
    differing = []
    if ours != theirs:
        lines = text.splitlines(keepends=True)
        differing = [line for line in lines if tokenizer.encode_ordinary(line) != llama.tokenize(line.encode(), add_bos=False)]
    result = (
        f"DIFFERENT in {len(differing)} lines, such as {[line[:60] for line in differing[:3]]}" if differing else "the same"
    )
    assert ours == theirs or differing, name
    print(f"  {name:24} {len(text.encode()) / 1e6:5.2f} MB {len(ours):>9,} tokens: {result}", flush=True)


def compare_all_ids(llama: Llama, tokenizer: Tokenizer, files: list[Path]):
    for file in files:
        with file.open("rb") as opened:
            compare_ids(llama, tokenizer, file.name, opened.read(MEGABYTE).decode("utf-8", "ignore"))
    library = Path(argparse.__file__).parent
    source = "".join(path.read_text("utf-8", "replace") for path in sorted(library.glob("*.py")))
    compare_ids(llama, tokenizer, "Python's sources", source[:MEGABYTE])
    compare_ids(llama, tokenizer, "text in many scripts", "".join(make_blocks(kinds_of_text(None, None), MEGABYTE)))
    for text in ("", "Once upon a time", "<|endoftext|>"):
        ids = llama.tokenize(text.encode(), special=False)
        assert ids == [tokenizer.eot_id, *tokenizer.encode_ordinary(text)], text
    assert llama.tokenize(b"a<|endoftext|>", special=True)[-1] == tokenizer.eot_id
    print("  a text begins with <|endoftext|>, which within a text is text unless special tokens are asked for")


def compare_cuts(folder: Path):
    """Says which characters belong to another class there, by a tokenizer whose merges show where a text was cut."""
    pairs = [pair for byte in range(256) for pair in [(byte, ord("a")), (ord("a"), byte), (byte, ord("!")), (byte, ord("1"))]]
    for pattern in dict.fromkeys(pattern for pattern, _ in PRE_TOKENIZERS):
        tokenizer = Tokenizer(list(dict.fromkeys(pairs)), pattern=pattern)
        llama = export(make_model(folder, tokenizer, d_model=8, blocks=1, num_heads=1), "f32", 512)
        differing = []

        def differ(first: int, last: int, tokenizer: Tokenizer = tokenizer, llama: Llama = llama) -> bool:
            chars = [chr(code_point) for code_point in range(first, last) if not 0xD800 <= code_point < 0xE000]
            text = "".join(f"\na{char}a\n{char}!\n{char}1\n1{char}1\nx'{char}a \n" for char in chars)
            return tokenizer.encode_ordinary(text) != llama.tokenize(text.encode(), add_bos=False)

        for first in range(0, 0x110000, 0x100):
            if differ(first, first + 0x100):
                differing += [code_point for code_point in range(first, first + 0x100) if differ(code_point, code_point + 1)]
        unknown = sum(unicodedata.category(chr(code_point)) == "Cn" for code_point in differing)
        spans = ", ".join(spans_of(differing))
        print(
            f"  {pattern}: {len(differing):,} of 1,112,064, of which {unknown:,} are not in Python's Unicode "
            f"{unicodedata.unidata_version}: {spans}",
            flush=True,
        )


def spans_of(numbers: list[int]) -> Iterator[str]:
    """Yields what follows one upon the other as one span."""
    starts = [number for number in numbers if number - 1 not in set(numbers)]
    ends = [number for number in numbers if number + 1 not in set(numbers)]
    for start, end in zip(starts, ends, strict=True):
        yield f"U+{start:04X}" if start == end else f"U+{start:04X}-{end:04X}"


# ---- models ----


def make_model(folder: Path, tokenizer: Tokenizer, **shape) -> Path:
    """Writes a model with random weights that are large enough for the text before to matter."""
    torch.manual_seed(0)
    model = Model(ModelConfig(tokenizer.vocab_size, hidden_dim=4 * shape["d_model"], max_seq_len=128, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.ndim == 2 else 1 + 0.2 * torch.randn_like(parameter))
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    return folder


def train_model(folder: Path, tokenizer: Tokenizer, file: Path, steps: int) -> Path:
    """Trains a model with 12 heads, whose slopes are not those of a power of two, for a short while."""
    torch.manual_seed(0)
    shape = {**TWELVE_HEADS, "hidden_dim": 4 * TWELVE_HEADS["d_model"]}
    model = Model(ModelConfig(tokenizer.vocab_size, max_seq_len=128, **shape))
    with file.open("rb") as opened:
        text = opened.read(4 * MEGABYTE).decode("utf-8", "ignore")
    ids = torch.tensor(tokenizer.encode(text, allowed_special="all"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 20) * (1 - step / steps)
        windows = torch.stack([ids[start : start + 129] for start in torch.randint(len(ids) - 129, (16,)).tolist()])
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"\ntrained a model with {shape['num_heads']} heads for {steps} steps, to a loss of {loss.item():.2f}")
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    return folder


def export(folder: Path, precision: str, length: int, **options) -> Llama:
    file = folder / f"{precision}.gguf"
    write_gguf(folder, file, precision)
    return open_llama(file, length, **options)


@contextmanager
def as_in_the_file(model: Model, file: Path) -> Iterator[None]:
    """Gives the model the weights of a GGUF file and the GELU of llama.cpp, as long as the `with` block lasts."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MPT, model.config.blocks)
    tensors = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(file).tensors}
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(
        {name: torch.tensor(tensors[names.get_name(PREFIX + name, try_suffixes=(".weight",))]) for name in own}
    )
    try:
        with patch.object(F, "gelu", partial(gelu_of_llama_cpp, F.gelu)):
            yield
    finally:
        model.load_state_dict(own)


def gelu_of_llama_cpp(gelu: Callable, x: torch.Tensor) -> torch.Tensor:
    """ggml_vec_gelu_f32: the tanh form, from a table that has a float16 for each float16 below 10."""
    return torch.where(x < 10, gelu(x.half().float(), approximate="tanh").half().float(), x)


# ---- logits, tokens, speed ----


@torch.inference_mode()
def compare_logits(folder: Path, ids: list[int]):
    model, _ = load_model(folder)
    trained = model.config.max_seq_len
    lengths = [trained // 2, trained, 4 * trained, 16 * trained]
    ours = {length: model(torch.tensor([ids[:length]]))[0].numpy() for length in lengths}
    print(f"  logits have a standard deviation of {ours[trained].std():.2f}; largest difference to ours, mean difference, ")
    print("  the same most likely token, and the largest difference to the file's own weights with llama.cpp's GELU:")
    settings = [(precision, {}) for precision in FILE_TYPES]
    usual = {"type_k": GGML_TYPE_F16, "type_v": GGML_TYPE_F16, "flash_attn": True}
    for precision, options in [*settings, ("f16", usual)]:
        llama = export(folder, precision, max(lengths), **options)
        name = f"{precision}, flash attention, f16 cache" if options else precision
        for length in lengths:
            theirs = logits_of(llama, ids[:length])
            with as_in_the_file(model, folder / f"{precision}.gguf"):
                rounded = model(torch.tensor([ids[:length]]))[0].numpy()
            difference = np.abs(theirs - ours[length])
            same = np.mean(theirs.argmax(1) == ours[length].argmax(1))
            print(
                f"  {name:32} {length:5} tokens: {difference.max():8.5f} {difference.mean():8.5f} {same:7.2%} "
                f"{np.abs(theirs - rounded).max():8.5f}",
                flush=True,
            )


@torch.inference_mode()
def compare_greedy(folder: Path, prompts: list[str], tokens: int):
    """Everybody writes so many tokens after each prompt, <|endoftext|> and what follows it too."""
    model, tokenizer = load_model(folder)
    starts = [tokenizer.encode_document(prompt) for prompt in prompts]
    ours = [generate_batch(model, [start], max_new_tokens=tokens, temperature=0)[0] for start in starts]
    for precision in FILE_TYPES:
        llama = export(folder, precision, 1024)
        theirs = [write_greedily(llama, prompt, tokens) for prompt in prompts]
        places = []
        for start, own, other in zip(starts, ours, theirs, strict=True):
            if own != other:
                place = [a == b for a, b in zip(own, other, strict=True)].index(False)
                first, second = model(torch.tensor([start + own[:place]]))[0, -1].topk(2).values
                places.append(f"at token {place}, where ours has {first - second:.4f} between the first two")
        print(
            f"  {precision:5} {len(prompts) - len(places)} of {len(prompts)} texts of {tokens} tokens are the same"
            + "".join(f"\n        another one {place}" for place in places),
            flush=True,
        )


def write_greedily(llama: Llama, prompt: str, tokens: int) -> list[int]:
    """Returns the most likely ids, one after the other."""
    written = []
    logits = logits_of(llama, llama.tokenize(prompt.encode()))[-1]
    while len(written) < tokens:
        written.append(int(logits.argmax()))
        llama.eval(written[-1:])
        logits = llama.scores[llama.n_tokens - 1]
    return written


def compare_speed(folder: Path, tokens: int):
    """Everybody writes a text of so many tokens from <|endoftext|>, by turns; llama.cpp through its generate()."""
    model, tokenizer = load_model(folder)
    llamas = {}
    for precision in FILE_TYPES:
        write_gguf(folder, folder / f"{precision}.gguf", precision)
        threads = torch.get_num_threads()
        llamas[precision] = Llama(
            str(folder / f"{precision}.gguf"), n_ctx=tokens + 8, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def write_by(llama: Llama):
        llama.reset()
        for _, _ in zip(range(tokens), llama.generate([tokenizer.eot_id], temp=0.8, top_k=0, top_p=1, min_p=0), strict=False):
            pass

    writers = {"Alilama, f32": lambda: generate_batch(model, [[tokenizer.eot_id]], max_new_tokens=tokens, seed=1)}
    writers |= {f"llama.cpp, {precision}": partial(write_by, llama) for precision, llama in llamas.items()}
    rates = {who: [] for who in writers}
    for turn in range(TURNS + 1):
        for who, write in writers.items():
            start = time.perf_counter()
            write()
            if turn > 0:  # the first one warms up
                rates[who].append(tokens / (time.perf_counter() - start))
    for who, its_rates in rates.items():
        ratio = statistics.median(own / its for own, its in zip(rates["Alilama, f32"], its_rates, strict=True))
        print(f"  {who:16} {statistics.median(its_rates):8,.0f} tokens/s, Alilama is {ratio:.2f}x", flush=True)


def compare_shapes(folder: Path, tokenizer: Tokenizer, ids: list[int]):
    for d_model, blocks, num_heads in ODD_SHAPES:
        shape = {"d_model": d_model, "blocks": blocks, "num_heads": num_heads}
        place = make_model(folder / f"{d_model}-{blocks}-{num_heads}", tokenizer, **shape)
        llama = export(place, "f32", 256)
        model, _ = load_model(place)
        with as_in_the_file(model, place / "f32.gguf"), torch.inference_mode():
            expected = model(torch.tensor([ids[:200]]))[0].numpy()
        difference = np.abs(logits_of(llama, ids[:200]) - expected).max()
        print(f"  {shape}: largest difference {difference:.5f} of logits up to {np.abs(expected).max():.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, nargs="*", default=[find_pretrained()], help="model folders [the pretrained one]")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="text files; the first one is trained on")
    parser.add_argument("--steps", type=int, default=200, help="that the model with 12 heads is trained for [200]")
    parser.add_argument("--tokens", type=int, default=200, help="that are written for each of ten prompts [200]")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for number, given in enumerate(arguments.model):
            model, tokenizer = load_model(given)
            folders.append(Path(name) / f"{number}-{given.resolve().name}")
            save_description(folders[-1], model.config, tokenizer)
            save_weights(folders[-1], model)
        _, tokenizer = load_model(folders[0])
        print("ids")
        compare_all_ids(export(folders[0], "f32", 512), tokenizer, arguments.data)
        print("ids of a tokenizer that cuts by gpt2")
        other = Tokenizer.train(str(arguments.data[0]), tokenizer.vocab_size, pattern="gpt2")
        other_folder = make_model(Path(name) / "gpt2", other, d_model=8, blocks=1, num_heads=1)
        compare_all_ids(export(other_folder, "f32", 512), other, arguments.data)
        print("which characters are cut in another way")
        compare_cuts(Path(name) / "cuts")
        folders.append(train_model(Path(name) / "12 heads", tokenizer, arguments.data[0], arguments.steps))
        with arguments.data[0].open("rb") as opened:
            text = opened.read(MEGABYTE).decode("utf-8", "ignore")
        stories = [story.strip() for story in text.split("<|endoftext|>") if len(story.split()) > PROMPT_WORDS]
        for folder in folders:
            _, tokenizer = load_model(folder)
            print(f"\n{folder.name}")
            ids = [id for story in stories for id in tokenizer.encode_document(story)]
            compare_logits(folder, ids)
            prompts = list(dict.fromkeys(" ".join(story.split()[:PROMPT_WORDS]) for story in stories))
            compare_greedy(folder, prompts[:NUM_PROMPTS], arguments.tokens)
            compare_speed(folder, arguments.tokens)
        print("\nodd shapes")
        compare_shapes(Path(name), tokenizer, ids)


if __name__ == "__main__":
    main()
