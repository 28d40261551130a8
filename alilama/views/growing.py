"""How a model grew: what it made of one prompt at its evaluations, beside the curve, as a page and as a picture."""

import html
import re
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from alilama.common.files import replacing
from alilama.training.card import CONTROL, UNKNOWN
from alilama.views.pictures import drawable, save_figure, set_title

PAGE = Path(__file__).with_suffix(".html")
MAX_STAGES = 100  # of a page, which has about 2 KB of each
PICTURE_STAGES, LINES, LINE_CHARACTERS = 4, 3, 105  # of a picture, and of a story in it
WIDTH, HEIGHT = 480, 270  # of the curve on the page
LEFT, RIGHT, TOP, BOTTOM = 46, 466, 28, 226  # of what its axes enclose
LEAST_BITS = 0.1  # from the lowest to the highest line of the curve
ROUND = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])  # of an axis

Sample = dict[str, int | float | str]  # a line of samples.jsonl, see alilama/training/log.py


def write_page(folder: Path, samples: Sequence[Sample], *, is_growing: bool):
    """Writes growing.html: the stages of a model, one at a time beside the curve.

    While it is growing the page loads anew and says when it was written, for of a run that was killed it cannot know.
    """
    stages = thin(samples, MAX_STAGES)
    parts = {
        "NAME": escape(folder.resolve().name),
        "ABOUT": escape(describe(stages, len(samples))),
        "WRITTEN": draw_time(time.time()) if is_growing else "",
        "CURVE": draw_curve(stages),
        "STAGES": "\n".join(draw_stage(number, stages) for number in range(len(stages))),
        "STATE": "growing" if is_growing else "grown",
    }
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub("|".join(parts), lambda marker: parts[marker[0]], page)
    with replacing(folder / "growing.html") as file:
        file.write(page.encode())


def thin(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Returns up to so many samples and the best: more of the early ones, between which a model changes most."""
    last, best = len(samples) - 1, best_of(samples)
    kept = {round(last * (i / (most - 1)) ** 2) for i in range(most)} if last >= most else range(last + 1)
    return [sample for i, sample in enumerate(samples) if i in kept or sample is best]


def best_of(samples: Sequence[Sample]) -> Sample | None:
    return min(filter(is_scored, samples), key=lambda sample: sample["val_bits_per_byte"], default=None)


def is_scored(sample: Sample) -> bool:
    return "val_bits_per_byte" in sample


# ---- the page ----


def describe(stages: Sequence[Sample], count: int) -> str:
    """Returns what the page says of its stages, of which there were `count`."""
    of = f" of {count:,}" if len(stages) < count else ""
    return (
        f"What it made of the same prompt, with the same seed, at {len(stages):,}{of} stages of its training. The curve: bits "
        "that it needs for a byte of text that it was not trained on; fewer are better."
    )


def draw_time(now: float) -> str:
    """Returns when the page was written, in seconds since 1970, as a part of it; its script says how long ago that was."""
    form = '<p>Written <time id="written" datetime="%Y-%m-%dT%H:%M:%SZ">on %Y-%m-%d at %H:%M UTC</time>, while it trained.</p>'
    return time.strftime(form, time.gmtime(now))


def draw_stage(number: int, stages: Sequence[Sample]) -> str:
    """Returns a stage as a part of the page: when it was, how good it was, and what it wrote, the prompt in bold."""
    stage = stages[number]
    x = place(stage["tokens"], stages)
    prompt, story = escape(stage["prompt"]), escape(stage["story"])
    if story.startswith(prompt):
        story = f"<b>{prompt}</b>{story[len(prompt) :]}"
    return (
        f'<section class="stage" id="stage{number}" data-x="{x:.1f}">\n<h2>{title_of(stage)}</h2>\n'
        f'<p>{score_of(stage, stages)}</p>\n<div class="story" lang="" dir="auto">{story}</div>\n</section>'
    )


def title_of(stage: Sample) -> str:
    return f"After {stage['tokens']:,} tokens" if stage["step"] else "Before training"


def score_of(stage: Sample, stages: Sequence[Sample]) -> str:
    parts = [f"step {stage['step']:,}"] if stage["step"] else []
    parts += [f"{stage['val_bits_per_byte']:.3f} bits per byte"] if is_scored(stage) else []
    parts += ["the best of all"] if stage is best_of(stages) else []
    return ", ".join(parts)


def place(tokens: float, stages: Sequence[Sample]) -> float:
    """Returns where a number of tokens is from left to right on the curve."""
    return LEFT + (RIGHT - LEFT) * tokens / most_tokens(stages)


def most_tokens(stages: Sequence[Sample]) -> int:
    return max(1, *(stage["tokens"] for stage in stages))


def draw_curve(stages: Sequence[Sample]) -> str:
    """Returns the bits per byte over the tokens as SVG, with a link to each stage; nothing before the first evaluation."""
    scored = [number for number, stage in enumerate(stages) if is_scored(stage)]
    if not scored:
        return ""
    scores = [stages[number]["val_bits_per_byte"] for number in scored]
    rows = ROUND.tick_values(min(scores), max(*scores, min(scores) + LEAST_BITS))

    def height(score: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (score - rows[0]) / (rows[-1] - rows[0])

    lines = [
        f'<path class="grid" d="M{LEFT} {height(row):.1f}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{height(row) + 4:.1f}" text-anchor="end">{row:g}</text>'
        for row in rows
    ]
    most = most_tokens(stages)
    short = EngFormatter(sep="")
    lines += [
        f'<text x="{place(tokens, stages):.1f}" y="{BOTTOM + 17}" text-anchor="middle">{short(tokens)}</text>'
        for tokens in ROUND.tick_values(0, most)
        if tokens <= most
    ]
    points = [(place(stages[number]["tokens"], stages), height(score)) for number, score in zip(scored, scores, strict=True)]
    lines += [
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">tokens read</text>',
        '<text x="2" y="13">bits per byte</text>',
        f'<path id="cursor" d="M0 {TOP}V{BOTTOM}"/>',
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>',
    ]
    lines += [
        f'<a href="#stage{number}" tabindex="-1"><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></a>'
        for number, (x, y) in zip(scored, points, strict=True)
    ]
    label = f"Bits per byte, from {scores[0]:.3f} to {scores[-1]:.3f}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n' + "\n".join(lines) + "\n</svg>"


def escape(text: str) -> str:
    """Returns text as HTML shows it, with a sign for what cannot be shown."""
    return html.escape(CONTROL.sub(UNKNOWN, text))


# ---- the picture ----


def save_picture(folder: Path, samples: Sequence[Sample]):
    """Writes growing.png: the curve, and how the story began at four of the stages."""
    save_figure(plot_growing(folder.resolve().name, samples), folder / "growing.png")


def plot_growing(name: str, samples: Sequence[Sample]) -> Figure:
    """Draws the bits per byte over the tokens, some stages numbered, and below it how the story of each of these began."""
    stages = thin(samples, PICTURE_STAGES)
    curve = [(sample["tokens"], sample["val_bits_per_byte"]) for sample in filter(is_scored, samples)]
    figure = Figure(figsize=(8, 3.2 + 0.75 * len(stages)), layout="constrained")
    above, below = figure.subplots(2, height_ratios=[3.2, 0.75 * len(stages)])
    above.plot([tokens for tokens, _ in curve], [score for _, score in curve], ".-", color="tab:blue")
    above.xaxis.set_major_formatter(EngFormatter(sep=""))
    above.set_xlim(left=0)
    above.set_xlabel("tokens read")
    above.set_ylabel("bits per byte")
    above.grid(alpha=0.3)
    set_title(above, f"{name}: what it made of the same prompt while it learned")
    below.axis("off")
    below.set(xlim=(0, 1), ylim=(len(stages), 0))
    circle = {"boxstyle": "circle", "fc": "tab:orange", "ec": "none"}
    mark = {"color": "white", "fontsize": 8, "ha": "center", "bbox": circle}
    for number, stage in enumerate(stages):
        if is_scored(stage):
            above.text(stage["tokens"], stage["val_bits_per_byte"], str(number + 1), va="center", **mark)
        below.text(0.01, number + 0.1, str(number + 1), va="top", **mark)
        heading = ", ".join(filter(None, [title_of(stage), score_of(stage, samples)]))
        below.text(0.03, number + 0.05, heading, va="top", fontsize=8, fontweight="bold")
        below.text(0.03, number + 0.27, beginning_of(stage["story"]), va="top", fontsize=8, parse_math=False)
    return figure


def beginning_of(story: str) -> str:
    """Returns how a story begins, in lines of a picture."""
    return "\n".join(textwrap.wrap(drawable(" ".join(story.split())), LINE_CHARACTERS, max_lines=LINES, placeholder=" …"))
