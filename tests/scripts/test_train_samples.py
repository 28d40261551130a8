"""What train.py keeps and shows of the stories that a model writes while it learns."""

import json
import signal

import pytest
from runs import SEED, STEPS, B, T, read_log

from alilama.model.folder import load_model
from alilama.training.log import Samples
from alilama.training.resume import load_state
from alilama.writing.streams import stream_text


def read_samples(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_evaluation_has_its_sample_and_there_is_one_from_before_training(trained):
    samples = read_samples(trained[0])
    assert [sample["step"] for sample in samples] == [0, 5, 10, 15, 20]
    assert [sample["tokens"] for sample in samples] == [step * B * T for step in (0, 5, 10, 15, 20)]
    scores = [float(row["val_bits_per_byte"]) for row in read_log(trained[0]) if row["val_loss"]]
    assert [sample.get("val_bits_per_byte") for sample in samples] == [None, *scores]
    assert {sample["prompt"] for sample in samples} == {"Once"}
    stories = [sample["story"] for sample in samples]
    assert len(set(stories)) == 5 and all(story.startswith("Once") for story in stories)
    shown = [" ".join(story.split()) in " ".join(trained[1].stdout.split()) for story in stories]
    assert shown == [False, True, True, True, True]


def test_a_sample_is_what_the_weights_of_then_write(trained):
    """The best are those of the end here."""
    model, tokenizer = load_model(trained[0])
    text = "".join(stream_text(model, tokenizer, "Once", max_new_tokens=400, temperature=0.7, seed=SEED))
    losses = [float(row["val_loss"]) for row in read_log(trained[0]) if row["val_loss"]]
    assert losses[-1] == min(losses)
    assert read_samples(trained[0])[-1]["story"] == "Once" + text


def test_a_page_shows_them_while_it_grows_and_a_picture_at_the_end(train_here, before_step, tmp_path):
    folder, seen = tmp_path / "models" / "owl", []
    before_step(7, lambda: seen.append((folder / "growing.html").read_text(encoding="utf-8")))
    before_step(8, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    assert seen[0].count('class="stage"') == 2 and 'class="growing"' in seen[0]
    stopped = (folder / "growing.html").read_text(encoding="utf-8")
    assert stopped.count('class="stage"') == 2 and 'class="grown"' in stopped
    assert (folder / "growing.png").read_bytes().startswith(b"\x89PNG")
    train_here()
    assert (folder / "growing.html").read_text(encoding="utf-8").count('class="stage"') == 5
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "![What it made of the same prompt while it learned](growing.png)" in card


def test_a_sample_is_written_after_the_checkpoint(train_here, tmp_path, monkeypatch):
    write, saved = Samples.write, []

    def write_and_look(self, row):
        saved.append((row["step"], load_state(tmp_path / "models" / "owl")["step"]))
        write(self, row)

    monkeypatch.setattr(Samples, "write", write_and_look)
    train_here()
    assert saved == [(step, step) for step in (0, 5, 10, 15, 20)]


def test_what_cannot_be_written_does_not_end_the_training(train_here, tmp_path, capfd, trained):
    folder = tmp_path / "models" / "owl"
    for name in ("samples.jsonl", "growing.html", "loss.png"):
        (folder / name).mkdir(parents=True)
    train_here()
    said = capfd.readouterr().out
    assert said.count("a sample is missing there") == 5
    assert "The stories so far were not written: models/owl/growing.html" in said
    assert "A picture was not drawn: models/owl/loss.png" in said
    assert read_log(folder) == read_log(trained[0])


def test_damaged_samples_are_no_reason_not_to_go_on(train_here, before_step, tmp_path, capfd):
    folder = tmp_path / "models" / "owl"
    before_step(7, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    (folder / "samples.jsonl").write_bytes(b"\xff\n")
    train_here()
    assert "it is samples.damaged.jsonl now" in capfd.readouterr().out
    assert [sample["step"] for sample in read_samples(folder)] == [10, 15, 20] and len(read_log(folder)) == STEPS


def test_a_run_that_lost_its_samples_and_is_stopped_draws_none(train_here, before_step, tmp_path, capfd):
    folder = tmp_path / "models" / "owl"
    before_step(6, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    (folder / "samples.jsonl").unlink()
    (folder / "growing.html").unlink()
    before_step(7, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    assert "Stopped at step 8" in capfd.readouterr().out
    assert not (folder / "growing.html").exists()


def test_the_sample_of_a_model_that_answers_is_the_prompt_and_its_answer(echo):
    samples = read_samples(echo[0] / "models" / "owl")
    assert [sample["step"] for sample in samples] == [0, 40, 80]
    prompt = samples[0]["prompt"]
    assert prompt.startswith("say ") and samples[-1]["story"] == f"{prompt}\n\n{prompt.removeprefix('say ')}!"


def test_training_on_from_a_model_begins_with_its_story_and_score(owl, train_here, tmp_path):
    train_here(init_from="models/owl", model_name="wiser")
    before, after = read_samples(owl)[-1], read_samples(tmp_path / "models" / "wiser")[0]
    assert after["step"] == after["tokens"] == 0 and after["story"] == before["story"]
    assert after["val_bits_per_byte"] == pytest.approx(before["val_bits_per_byte"], abs=1e-4)


def test_a_sample_that_memory_does_not_hold_does_not_end_the_training(train_here, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.writing.streams.free_bytes", lambda device: 1)
    train_here()
    stories = [sample["story"] for sample in read_samples(tmp_path / "models" / "owl")]
    assert len(stories) == 5 and all("no text: max_new_tokens = 400: " in story for story in stories)
    assert load_state(tmp_path / "models" / "owl")["step"] == STEPS


@pytest.mark.parametrize(
    "said", ["CUDA out of memory. Tried to allocate 2 GiB\nsee there", "MPS backend out of memory (20 GB)"]
)
def test_a_sample_that_runs_out_of_memory_does_not_end_the_training(said, train_here, tmp_path, monkeypatch):
    def decoder_of(*arguments):
        raise RuntimeError(said)

    monkeypatch.setattr("alilama.writing.streams.choose_decoder", decoder_of)
    train_here()
    stories = [sample["story"] for sample in read_samples(tmp_path / "models" / "owl")]
    assert len(stories) == 5 and all(said.partition("\n")[0] in story and "see there" not in story for story in stories)
    assert load_state(tmp_path / "models" / "owl")["step"] == STEPS


def test_a_mistake_in_making_samples_is_not_taken_for_memory_that_runs_out(train_here, monkeypatch):
    def decoder_of(*arguments):
        raise RuntimeError("the shapes do not match")

    monkeypatch.setattr("alilama.writing.streams.choose_decoder", decoder_of)
    with pytest.raises(RuntimeError, match="the shapes do not match"):
        train_here()
