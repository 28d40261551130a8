"""Makes a tokenizer and token files from your text: python tokenize_data.py --data_files=my.txt --vocab_size=4096"""

from alilama.common.errors import begin_script

begin_script(__name__)

import gc
import os
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from alilama.common.config import DATA_SETTINGS, SHARED_SETTINGS, Config, load_config, quoted
from alilama.common.errors import UserError, one_line_errors
from alilama.common.locks import locked
from alilama.common.progress import progress
from alilama.data.formats import END_OF_TEXT
from alilama.data.frames import FRAME_TOKENS
from alilama.data.hub import ending_at_once
from alilama.data.opening import check_text
from alilama.data.text import Source, files_below, find_sources, has_conversations, identity, share_of_marks
from alilama.data.tokenizer import PATTERNS, Tokenizer
from alilama.data.tokens import check_are_free, load_meta, write_token_files

ROOT = Path(__file__).parent
DEMO_FILE = Path("data/demo/stories.txt")
DEMO_MEGABYTES = 8
LITTLE_TEXT = 1_000_000  # bytes
MANY_MARKS = 0.05  # of the letters
CUTS_AT_MARKS = [name for name, expression in PATTERNS.items() if r"\p{M}" not in expression]
SAMPLED_SOURCES = 16


def main(argv: list[str]):
    settings = DATA_SETTINGS + SHARED_SETTINGS
    config = load_config(ROOT / "TRAINCONFIG.py", argv, "Makes a tokenizer and token files from text.", settings)
    try:
        make_token_files(config)
    except (UserError, OSError) as error:
        raise UserError(f"{error}{still_there(Path(config.tokens_dir))}") from None


def make_token_files(config: Config):
    """Finds and checks the texts, then writes the tokenizer and the token files."""
    if config.data_files == "data/raw" and not files_below(Path("data/raw")):
        print(f"There is no text in data/raw yet, so this uses {DEMO_MEGABYTES} MB of the built-in demo stories.")
        print("Put your own text there, as .txt, .jsonl, .csv or .parquet, or pass --data_files=PATH, and run this again.")
        config.data_files = make_demo_text()
    sources, val_sources = find_sources(config.data_files, text_column=config.text_column), None
    if config.val_files is not None:
        val_sources = find_sources(config.val_files, "val_files", config.text_column)
    trained_on = {identity(source.path) for source in sources}
    if both := [source.path for source in val_sources or [] if identity(source.path) in trained_on]:
        raise UserError(
            f"{both[0]} is in data_files and in val_files: what is trained on cannot show what was learned; move it out of "
            "data_files"
        )
    folder = Path(config.tokens_dir)
    if any(isinstance(source.path, Path) and source.path.resolve().parent == folder.resolve() for source in sources):
        raise UserError(
            f"tokens_dir = {config.tokens_dir!r} is where data_files are, so that the next run would learn from "
            "the token files; choose another folder"
        )
    if config.pattern not in PATTERNS and (not config.pattern or config.pattern.isalnum()):  # a slip, and no way to cut a text
        raise UserError(f"pattern = {config.pattern!r}: expected one of {', '.join(PATTERNS)}, or a regular expression")
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"tokens_dir = {config.tokens_dir!r}: {nearest} is not a folder to write in; choose another one")
    check_texts(sources + (val_sources or []))
    with locked(folder):
        check_are_free(folder)
        write_tokens(config, sources, val_sources)


def write_tokens(config: Config, sources: list[Source], val_sources: list[Source] | None):
    """Learns the tokenizer from checked texts and writes it and the token files, saying what comes of it."""
    num_bytes, num_val_bytes = (sum(source.size for source in part or []) for part in (sources, val_sources))
    warnings.formatwarning = lambda message, *_: f"Note: {message}\n"
    started = time.perf_counter()

    has_prompts = any(map(has_conversations, sources))
    if not has_prompts and any(map(has_conversations, val_sources or [])):
        raise UserError("val_files hold prompts with answers and data_files none, so that nothing of the kind is learned")
    if config.init_from is not None:
        tokenizer = Tokenizer.load(Path(config.init_from) / "tokenizer.json")
        print(f"Using the tokenizer of {config.init_from}")
        tokenizer = tokenizer.with_frame() if has_prompts else tokenizer
    else:
        sample = sources[:SAMPLED_SOURCES] if config.pattern in CUTS_AT_MARKS else []
        marks = max((share_of_marks(source, config.pattern) for source in sample), default=0)
        if marks > MANY_MARKS:
            print(
                f"Note: {marks:.0%} of the letters are marks, such as vowel signs, at which {config.pattern} cuts words; "
                "--pattern=qwen35 keeps them whole and needs fewer tokens"
            )
        with progress(num_bytes or None, desc="learning the vocabulary", unit="B", unit_scale=True) as bar:
            tokenizer = Tokenizer.train(
                config.data_files,
                config.vocab_size,
                special_tokens=(END_OF_TEXT, *FRAME_TOKENS) if has_prompts else (END_OF_TEXT,),
                pattern=config.pattern,
                text_column=config.text_column,
                on_bytes=bar.update,
            )
    with progress(num_bytes + num_val_bytes or None, desc="writing tokens", unit="B", unit_scale=True) as bar:
        meta = write_token_files(
            tokenizer,
            sources,
            Path(config.tokens_dir),
            val_sources=val_sources,
            val_fraction=config.val_fraction,
            on_bytes=bar.update,
        )

    seconds = time.perf_counter() - started
    files = counted(len(sources + (val_sources or [])), "file")
    print(f"{tqdm.format_sizeof(sum(meta.bytes.values()), 'B')} of text in {files}, in {seconds:.1f} s")
    is_cut = val_sources is None and meta.sources["val"]  # a document may be in both
    for split in meta.tokens:
        origin = counted(meta.documents[split], "document")
        if split == "val" and is_cut:
            origin = f"the end of {counted(len(meta.sources['val']), 'file')}"
        print(
            f"  {split + '.npy':10} {meta.tokens[split]:>12,} tokens, "
            f"{meta.bytes[split] / meta.tokens[split]:.2f} bytes each, from {origin}"
        )
    if has_prompts:
        print("There are prompts with answers: the answers are learned, and the model will answer prompts.")
    if config.init_from is None and meta.bytes["train"] < LITTLE_TEXT:
        print(
            f"That is little text: a model will learn its words and repeat it. {LITTLE_TEXT / 1e6:g} MB or more is better; for "
            "English begin with what another model knows: --init_from=models/alilama_2M, here and for train.py."
        )
    options = [
        f" --{name}={quoted(value)}"
        for name, value, usual in (("tokens_dir", config.tokens_dir, "data/tokens"), ("init_from", config.init_from, None))
        if value != usual
    ]
    options += [" --model_name=NAME"] if config.model_dir.exists() else []  # it is a run on other tokens, or a finished one
    print(
        f"The tokenizer ({tokenizer.vocab_size:,} tokens) and the token files are in {config.tokens_dir}. "
        f"Next: python train.py --minutes=5{''.join(options)}"
    )


def check_texts(sources: list[Source]):
    """Raises UserError for a file that is no text, and tells of text that is not all UTF-8."""
    shares = {source.path: check_text(source.path) for source in sources if isinstance(source.path, Path)}
    odd = [path for path, share in shares.items() if share > 0]
    if odd:
        which = f"{odd[0]} and {counted(len(odd) - 1, 'more file')} are" if len(odd) > 1 else f"{odd[0]} is"
        print(
            f"Note: {which} not all UTF-8 ({shares[odd[0]]:.2%} of its first bytes are not) and kept byte for byte; "
            "text in an older encoding is better converted: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW"
        )


def make_demo_text() -> str:
    """Returns the path of the built-in demo text, which it writes the first time."""
    if not DEMO_FILE.exists():
        sys.path.insert(0, str(ROOT / "data"))
        from make_stories import write_stories

        DEMO_FILE.parent.mkdir(parents=True, exist_ok=True)
        write_stories(DEMO_FILE, DEMO_MEGABYTES, seed=1)
    return str(DEMO_FILE)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def still_there(folder: Path) -> str:
    """Says which text's tokens a folder still holds, for train.py would train on them; nothing where it would not."""
    try:
        return f"; {folder} still holds the tokens of {load_meta(folder).text}"
    except (UserError, OSError):
        return ""


if __name__ == "__main__":
    gc.set_threshold(100_000)  # rows are many objects without circles, which took a third of the time of reading them
    with ending_at_once(), one_line_errors():
        main(sys.argv[1:])
