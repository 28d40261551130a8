"""The card of a model, README.md in its folder: what it is, how well it does, what it was trained on. The Hub shows it first.

A card that somebody else wrote or has changed stays as it is: the last line of ours is a checksum of the lines before it.
"""

import hashlib
import math
import re
from dataclasses import asdict
from pathlib import Path

from alilama.common.files import replacing
from alilama.model.folder import is_mpt
from alilama.model.model import Model
from alilama.training.log import best_evaluation, read_log
from alilama.training.resume import FREE_TO_CHANGE, Run

MARK = "\n<!-- Alilama wrote this and writes it again when the model changes, unless you change it ({}) -->\n"
EVALUATION, DATA = "\n## At other lengths\n", "\n## Data\n"  # before the second nothing from outside has a line of its own
GROWING = "\n![What it made of the same prompt while it learned](growing.png)\n"
MAX_NAMES = 10  # of files
LARGEST_LOSS = 700  # in nats, whose perplexity is a number
VLLM_HEAD_DIMS = range(32, 257, 32)  # what its FlashAttention takes, and all others that know linear biases
UNKNOWN = "\ufffd"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # but for tabs and line ends

METADATA = """\
---
library_name: {library}
pipeline_tag: text-generation
tags:
- mpt
- alibi
- alilama
# Only you know these, and the Hub asks for them:
# language: en
# license: mit
---
"""
IN_TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name!r}  # this folder, or its name on the Hub
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
inputs = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"""
ANSWERED_IN_TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name!r}  # this folder, or its name on the Hub
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
messages = [{{"role": "user", "content": {prompt!r}}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
IN_ALILAMA = """\
from alilama import load_model, stream_text

prompt = {prompt!r}
print(prompt, *stream_text(*load_model({name!r}), prompt), sep="")"""
ANSWERED_IN_ALILAMA = """\
from alilama import load_model, stream_text

print(*stream_text(*load_model({name!r}), {prompt!r}), sep="")"""


def write_card(run: Run, model: Model, hardware: str, story: str, *, has_frame: bool = False):
    """Writes the card of a run whose weights are saved; `hardware` is what it was trained on, `story` is by these weights.

    has_frame: it answers prompts.
    """
    path = run.folder / "README.md"
    if not path.exists() or read_card(path) is not None:
        save_card(path, describe(run, model, read_log(run.folder / "log.csv"), hardware, story, has_frame))


def add_evaluation(folder: Path, lines: list[str]):
    """Adds what alilama.evaluate found, with its picture in the same folder, to the card, or replaces what it found before."""
    path = folder / "README.md"
    if (text := read_card(path)) is not None:
        before, _, after = text.partition(DATA)
        before = before.partition(EVALUATION)[0]
        found = "\n".join(lines)
        picture = "![Loss over the context length](evaluation.png)"
        save_card(path, f"{before}{EVALUATION}\n{fenced(found)}\n\n{picture}\n{DATA}{after}")


def read_card(path: Path) -> str | None:
    """Returns a card without its last line, None where there is none or somebody has changed it."""
    content = path.read_bytes() if path.is_file() else b""
    text = content[: -len(mark_of(""))].decode(errors="replace")
    return text if content == (text + mark_of(text)).encode(errors="replace") else None


def save_card(path: Path, text: str):
    with replacing(path) as file:
        file.write((text + mark_of(text)).encode())


def mark_of(text: str) -> str:
    return MARK.format(hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16])


def describe(run: Run, model: Model, rows: list[dict[str, float]], hardware: str, story: str, has_frame: bool) -> str:
    """Returns the text of the card; `rows` are those of the log."""
    library = "transformers" if is_mpt(model.config) else "alilama"
    return f"""\
{METADATA.format(library=library)}
# {code(run.folder.name)}

{describe_model(run, model)}

## How to use it

{describe_use(run, model, has_frame)}

## What was measured

{describe_scores(run, rows, hardware)}

![Losses over the tokens seen](loss.png)
{DATA}
{describe_data(run)}

## Settings

{describe_settings(run)}

## What it writes

{fenced(story)}
{GROWING if (run.folder / "growing.png").is_file() else ""}"""


def describe_model(run: Run, model: Model) -> str:
    config = run.config
    text = (
        f"A language model of {model.num_parameters():,} parameters: {config.blocks} blocks of width {config.d_model} with "
        f"{config.num_heads} heads, trained at a context of {config.max_seq_len:,} tokens, {run.meta.vocab_size:,} tokens in "
        "the vocabulary. Linear biases (ALiBi) stand for positions, so that it reads on beyond that context."
    )
    if config.init_from is not None:
        text += f" It was trained on from {code(Path(config.init_from).name)}."
    if config.teacher_dirs:
        text += f" It learned from {' and '.join(code(folder.name) for folder in config.teacher_dirs)} beside the text."
    return text


def describe_use(run: Run, model: Model, has_frame: bool) -> str:
    names = {"name": run.folder.name, "prompt": run.config.sample_prompt}
    in_alilama = ANSWERED_IN_ALILAMA if has_frame else IN_ALILAMA
    in_transformers = ANSWERED_IN_TRANSFORMERS if has_frame else IN_TRANSFORMERS
    ours = f"In Alilama:\n\n{fenced(in_alilama.format(**names), 'python')}"
    if not is_mpt(model.config):
        return f"{ours}\n\nTransformers does not have its formulas."
    width = run.config.d_model // run.config.num_heads
    where = "In Transformers (vLLM reads the folder as well)" if width in VLLM_HEAD_DIMS else "In Transformers"
    return f"{where}:\n\n{fenced(in_transformers.format(**names), 'python')}\n\n{ours}"


def describe_scores(run: Run, rows: list[dict[str, float]], hardware: str) -> str:
    """Says how good the saved weights are, which are those of the lowest validation loss, and what it took to train them."""
    rows = [row for row in rows if row.keys() >= {"step", "tokens", "epoch", "tokens_per_s"}]
    evaluations = [row for row in rows if row.keys() >= {"val_loss", "val_bits_per_byte"}]
    if not evaluations:
        return "log.csv, which should say it, was damaged or removed."
    best, last = best_evaluation(evaluations), rows[-1]
    seconds = sum(
        (row["tokens"] - before["tokens"]) / row["tokens_per_s"]
        for before, row in zip([{"tokens": 0}, *rows], rows, strict=False)
        if row["tokens_per_s"]
    )
    scored = min(run.meta.tokens["val"] - 1, run.config.eval_tokens or run.meta.tokens["val"])
    return f"""\
| | |
|---|---|
| bits per byte | {best["val_bits_per_byte"]:.3f} |
| loss | {best["val_loss"]:.3f} nats per token, a perplexity of {math.exp(min(best["val_loss"], LARGEST_LOSS)):,.1f} |
| after | step {best["step"]:,.0f}: {best["tokens"]:,.0f} tokens, {best["epoch"]:.2f} times the text |
| trained for | {last["step"]:,.0f} steps, which took {seconds / 60:,.1f} minutes on {hardware} |

On {scored:,} tokens that it was not trained on, in windows of {run.config.max_seq_len:,} that do not overlap. The weights are
those of the evaluation with the lowest loss."""


def describe_data(run: Run) -> str:
    """Names the files, but not the folders they were in, which concern nobody else, and says how much text they are."""
    meta = run.meta
    names = [code(re.split(r"[\\/]", source)[-1]) for source in meta.sources["train"] + meta.sources["val"]]
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    counts = {"documents": meta.documents, "bytes": meta.bytes, "tokens": meta.tokens}
    table = "\n".join(f"| {name} | {count['train']:,} | {count['val']:,} |" for name, count in counts.items())
    return f"{', '.join(names[:MAX_NAMES])}{more}\n\n| | trained on | held out |\n|---|---|---|\n{table}"


def describe_settings(run: Run) -> str:
    """Lists what the model and what it learned depend on, as TRAINCONFIG.py has it."""
    config = run.config
    settings = {name: value for name, value in asdict(config).items() if name not in {*FREE_TO_CHANGE, "model_name"}}
    settings["init_from"] = config.init_from and Path(config.init_from).name
    settings["teacher"] = ",".join(folder.name for folder in config.teacher_dirs) or None
    return fenced("\n".join(f"{name} = {value!r}" for name, value in settings.items()), "python")


# ---- text from outside, which Markdown must not read ----


def code(text: str) -> str:
    """Returns text as inline code on one line."""
    text = CONTROL.sub(UNKNOWN, re.sub(r"[\r\n]", " ", text))
    fence = "`" * (1 + longest_run(text))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Returns text as a block of code."""
    fence = "`" * max(3, 1 + longest_run(text))
    return f"{fence}{language}\n{CONTROL.sub(UNKNOWN, text)}\n{fence}"


def longest_run(text: str) -> int:
    """Returns how many backticks follow one another in a text at most."""
    return max(map(len, re.findall("`+", text)), default=0)
