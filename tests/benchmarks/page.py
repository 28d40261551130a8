"""Measures the page that alilama.export writes, in Chromium: python tests/benchmarks/page.py --model FOLDER --data FILE

Its size, its tokens per second, whether it cuts the text of --data into the same ids, and how many of 200 greedy tokens
from each of ten prompts, taken from there, are ours, by the weights as they are and by their 16-bit values.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from alilama.data.formats import END_OF_TEXT
from alilama.export.html import write_html
from alilama.model.folder import load_model
from alilama.writing.streams import generate_batch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))
from browser import Browser

PROMPTS, TOKENS, PROMPT_CHARS, TEXT_CHARS = 10, 200, 40, 200_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="text of the kind that it was trained on")
    arguments = parser.parse_args()
    model, tokenizer = load_model(arguments.model)
    text = arguments.data.read_text(encoding="utf-8").replace(END_OF_TEXT, "")
    prompts = [text[i * 1000 :].lstrip()[:PROMPT_CHARS] for i in range(PROMPTS)]
    prompt_ids = [tokenizer.encode_document(prompt) for prompt in prompts]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        write_html(arguments.model, page)
        half = sum(weight.numel() for weight in model.parameters()) * 2
        print(f"{page.stat().st_size / 1e6:.2f} MB, {page.stat().st_size / half:.2f} times the weights in 16 bits")
        with Browser(Path(folder) / "profile") as browser:
            browser.open(page)
            differing = [
                i
                for i in range(0, len(text), TEXT_CHARS)
                if browser.run(f"tokenizer.encode({json.dumps(text[i : i + TEXT_CHARS])})")
                != tokenizer.encode_ordinary(text[i : i + TEXT_CHARS])
            ]
            print(f"ids of {len(text):,} characters: {'as ours' if not differing else f'others in {len(differing)} parts'}")
            started = browser.run("performance.now()")
            theirs = [greedy(browser, ids) for ids in prompt_ids]
            seconds = (browser.run("performance.now()") - started) / 1000
    read = sum(map(len, prompt_ids)) + PROMPTS * TOKENS
    print(f"{read / seconds:,.0f} tokens/s")
    for weights in ("32", "16"):
        if weights == "16":
            with torch.no_grad():
                for weight in model.parameters():
                    weight.copy_(weight.half())
        ours = [generate_batch(model, [ids], max_new_tokens=TOKENS, temperature=0)[0] for ids in prompt_ids]
        equal = [next((i for i in range(TOKENS) if a[i] != b[i]), TOKENS) for a, b in zip(ours, theirs, strict=True)]
        print(f"weights in {weights} bits: the first {equal} of {TOKENS} tokens are ours")


def greedy(browser: Browser, ids: list[int]) -> list[int]:
    return browser.run(f"""(() => {{
        const ids = [];
        model.length = 0;
        let logits;
        for (const id of {ids}) logits = model.read(id);
        while (ids.length < {TOKENS}) logits = model.read(ids[ids.push(sample(logits, 0)) - 1]);
        return ids;
    }})()""")


if __name__ == "__main__":
    main()
