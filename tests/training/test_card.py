"""README.md of a model folder: what it says, and that it stays what somebody else made of it."""

import math
from itertools import pairwise

import pytest
from helpers import tiny_model

from alilama.data.tokens import TokenMeta
from alilama.training import card
from alilama.training.card import add_evaluation, write_card
from alilama.training.log import COLUMNS
from alilama.training.resume import Run

ROWS = [
    {"step": 10, "tokens": 1000, "epoch": 0.5, "train_loss": 3.5, "tokens_per_s": 100},
    {"step": 20, "tokens": 2000, "epoch": 1.0, "val_loss": 3.0, "val_bits_per_byte": 1.25, "tokens_per_s": 50},
    {"step": 30, "tokens": 3000, "epoch": 1.5, "val_loss": 2.5, "val_bits_per_byte": 1.125, "tokens_per_s": 50},
    {"step": 40, "tokens": 4000, "epoch": 2.0, "val_loss": 2.75, "val_bits_per_byte": 1.175, "tokens_per_s": 0},
]
HEADINGS = ["How to use it", "What was measured", "Data", "Settings", "What it writes"]
HOSTILE = "`` ```\n````\n## Data\n\n# title\n---\n</details><!-- \x00\x1b[31m\udc80 | $x$ **b** ~~~\n## At other lengths\n"


@pytest.fixture
def make_run(make_config, tmp_path):
    """Returns a run of a model of 32 dimensions whose log is ROWS, and the model."""

    def make(sources=("data/raw/one.txt",), **changed):
        settings = {"models_dir": str(tmp_path), "model_name": "owl", "d_model": 32, "blocks": 2, "num_heads": 4}
        config = make_config(**settings | {"max_seq_len": 16, "epochs": 2.0} | changed)
        meta = TokenMeta(
            400,
            "",
            {"train": 12_345, "val": 67},
            {"train": 1_234_567, "val": 4_001},
            {"train": 7_654_321, "val": 9_876},
            {"train": 1, "val": 2},
            {"train": [*sources], "val": []},
        )
        run = Run(config, meta, 40)
        run.folder.mkdir()
        lines = [COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in ROWS)]
        (run.folder / "log.csv").write_text("".join(f"{','.join(map(str, line))}\n" for line in lines))
        return run, tiny_model(400, hidden_dim=config.hidden_dim or 128)

    return make


def written(run, model, story="The end.") -> str:
    write_card(run, model, "2 CPU threads in bfloat16", story)
    return (run.folder / "README.md").read_text(encoding="utf-8")


def test_it_says_what_the_model_is_how_good_it_is_and_what_it_was_made_of(make_run):
    run, model = make_run(eval_tokens=3000)
    text = written(run, model)
    for fact in (
        f"{model.num_parameters():,} parameters",
        "2 blocks of width 32 with 4 heads",
        "context of 16 tokens",
        "400 tokens in the vocabulary",
        "| bits per byte | 1.125 |",
        f"| loss | 2.500 nats per token, a perplexity of {math.exp(2.5):.1f} |",
        "step 30: 3,000 tokens, 1.50 times the text",  # the best evaluation, not the last
        "40 steps, which took 0.8 minutes on 2 CPU threads in bfloat16",  # 10 s and twice 20 s, and a row without a speed
        "On 3,000 tokens",
        "| documents | 12,345 | 67 |",
        "| bytes | 7,654,321 | 9,876 |",
        "| tokens | 1,234,567 | 4,001 |",
        "\nd_model = 32\n",
        "\nlearning_rate = 0.045\n",
        "\noptimizer = 'muon'\n",
        "](loss.png)",
        "\nThe end.\n",
        "`one.txt`",
    ):
        assert fact in text, fact
    assert "raw" not in text and str(run.folder.parent) not in text  # where the text lies concerns nobody else
    run.config.eval_tokens = None
    assert "On 4,000 tokens" in written(run, model)


def test_the_hub_reads_the_metadata_and_nothing_is_claimed_that_only_the_author_knows(make_run):
    hub = pytest.importorskip("huggingface_hub")
    run, model = make_run()
    text = written(run, model)
    data = hub.ModelCard.load(run.folder / "README.md").data.to_dict()
    assert data == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["mpt", "alibi", "alilama"]}
    assert text.index("---\n") == 0


def test_a_model_that_only_alilama_reads_says_so(make_run):
    text = written(*make_run(hidden_dim=100))
    assert "library_name: alilama" in text and "transformers import" not in text and "from alilama import" in text


@pytest.mark.parametrize(("d_model", "is_read"), [(32, False), (128, True)])
def test_vllm_is_named_where_its_attention_takes_heads_of_that_width(d_model, is_read, make_run):
    run, _ = make_run(d_model=d_model)
    assert ("vLLM" in written(run, tiny_model(400, d_model=d_model))) == is_read


def test_what_it_was_trained_on_from_is_named_without_its_place(make_run):
    text = written(*make_run(init_from="/home/me/models/older", teacher="secret/large"))
    assert "trained on from `older`" in text and "from `large` beside" in text
    assert "init_from = 'older'" in text and "teacher = 'large'" in text
    assert "/home" not in text and "secret" not in text


@pytest.mark.parametrize("place", ["/home/me/texts/one.txt", r"C:\Users\me\texts\one.txt", "one.txt"])
def test_a_text_is_named_without_its_place_on_whatever_system_it_became_tokens(place, make_run):
    text = written(*make_run(sources=[place]))
    assert "\n`one.txt`\n" in text and "Users" not in text


def test_many_files_are_a_few_names_and_a_number(make_run):
    text = written(*make_run(sources=[f"text{i}.txt" for i in range(1234)]))
    assert "`text9.txt` and 1,224 more" in text and "text10.txt" not in text


def test_text_from_outside_breaks_neither_markdown_nor_metadata(make_run):
    """Read by another library: the headings are ours alone, and the story is one block of code."""
    markdown_it = pytest.importorskip("markdown_it")
    names = {"model_name": "`owl` |\n# x", "sample_prompt": HOSTILE, "init_from": HOSTILE}
    run, model = make_run(sources=[f"data/{HOSTILE.replace('/', '')}"], **names)
    written(run, model, story=HOSTILE)
    add_evaluation(run.folder, ["context loss", "128 2.5"])
    add_evaluation(run.folder, ["context loss", "256 2.4"])
    text = (run.folder / "README.md").read_text(encoding="utf-8")
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1])
    headings = [after.content for before, after in pairwise(tokens) if before.type == "heading_open"]
    assert headings[1:] == [*HEADINGS[:2], "At other lengths", *HEADINGS[2:]] and headings[0] == "`` `owl` | # x ``"
    blocks = [token for token in tokens if token.type == "fence"]
    assert [block.info for block in blocks] == ["python", "python", "", "python", ""]
    assert blocks[-1].content == HOSTILE.replace("\x00", "�").replace("\x1b", "�").replace("\udc80", "�") + "\n"
    assert blocks[2].content == "context loss\n256 2.4\n"
    for block in blocks:
        if block.info == "python":
            compile(block.content, "card", "exec")
    html = [token for token in tokens if token.type == "html_block"]
    assert len(html) == 1 and html[0].content.startswith("<!-- Alilama wrote this")


def test_it_is_written_again_and_keeps_up_with_the_model(make_run):
    run, model = make_run()
    first = written(run, model, "First.")
    second = written(run, model, "Second.")
    assert "First." in first and "Second." in second and "First." not in second


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"# My model\n",
        lambda content: b"",
        lambda content: content.replace(b"# license: mit", b"license: mit"),
        lambda content: content + b"A line more.\n",
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content[10:],
        lambda content: content + b"\xff",
    ],
)
def test_what_somebody_wrote_or_changed_stays_as_it_is(change, make_run):
    run, model = make_run()
    written(run, model)
    path = run.folder / "README.md"
    path.write_bytes(changed := change(path.read_bytes()))
    write_card(run, model, "", "Another story.")
    add_evaluation(run.folder, ["128 2.5"])
    assert path.read_bytes() == changed


def test_a_folder_of_that_name_is_left_alone(make_run):
    run, model = make_run()
    (run.folder / "README.md").mkdir()
    write_card(run, model, "", "")
    add_evaluation(run.folder, [])
    assert not list((run.folder / "README.md").iterdir())


def test_an_evaluation_is_added_replaced_and_gone_when_the_model_changes(make_run):
    run, model = make_run()
    add_evaluation(run.folder, ["128 2.5"])
    assert not (run.folder / "README.md").exists()
    before = written(run, model)
    add_evaluation(run.folder, ["128 2.5", "256 2.4"])
    add_evaluation(run.folder, ["512 2.3"])
    after = (run.folder / "README.md").read_text(encoding="utf-8")
    added = f"{card.EVALUATION}\n```\n512 2.3\n```\n\n![Loss over the context length](evaluation.png)\n"
    assert after.replace(added, "").splitlines()[:-1] == before.splitlines()[:-1] and added in after
    assert written(run, model) == before


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("step,tokens\n1,2\n", "was damaged or removed"),
        ("step,tokens,epoch,tokens_per_s,val_loss,val_bits_per_byte\n1,nan,1,1,2,3\n", "was damaged or removed"),
        ("step,tokens,epoch,tokens_per_s,val_loss,val_bits_per_byte\n1,5,1,1,800,3\nx\n", "800.000 nats per token"),
        ("", "was damaged or removed"),
    ],
)
def test_a_damaged_log_is_no_reason_to_fail(log, expected, make_run):
    run, model = make_run()
    (run.folder / "log.csv").write_text(log)
    assert expected in written(run, model)
