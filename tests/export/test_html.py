import codecs
import dataclasses
import json
import re

import pytest
import regex
import torch
from browser import Browser
from oracles import mixed_text
from pages import TEXT, js, save_model

import alilama.model.folder as folder_module
from alilama.common.errors import UserError
from alilama.data.frames import FRAME_TOKENS
from alilama.data.tokenizer import Tokenizer
from alilama.export import html
from alilama.export.__main__ import main
from alilama.export.html import write_html
from alilama.model.folder import load_model, save_weights
from alilama.writing.streams import generate_batch

# ---- what it computes ----


def test_logits_are_ours_below_and_beyond_the_trained_length(browser, made):
    model, tok = made
    ids = [tok.eot_id, *tok.encode_ordinary(TEXT)][:60]
    found = browser.run(f"model.length = 0, {ids}.map((id) => Array.from(model.read(id)))")
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0]
    assert len(ids) == 60 and torch.allclose(torch.tensor(found), expected, atol=1e-4)
    again = browser.run(f"model.length = 30, {ids[30:]}.map((id) => Array.from(model.read(id)))")
    assert again == found[30:]  # what is read again after something was taken back


def test_attention_is_a_distribution_over_the_tokens_so_far_and_ours(browser, made):
    model, tok = made
    ids = [tok.eot_id, *tok.encode_ordinary("Once upon a time")]
    seen = []

    def attend(qkv):
        q, k, v = qkv.transpose(1, 3).unbind(2)
        distance = torch.arange(len(ids))[:, None] - torch.arange(len(ids))
        scores = q @ k.mT / q.shape[-1] ** 0.5 - model.slopes[:, None, None] * distance
        seen.append(scores.masked_fill(distance < 0, -torch.inf).softmax(-1))
        return (seen[-1] @ v).transpose(1, 2)

    with torch.inference_mode():
        model.hidden(torch.tensor([ids]), [attend] * 2)
    browser.run(f"model.length = 0, {ids}.forEach((id) => model.read(id))")
    for block in range(2):
        for head in range(3):
            found = torch.tensor(browser.run(f"Array.from(model.attention({block}, {head}, {len(ids) - 1}))")).float()
            assert torch.allclose(found, seen[block][0, head, -1], atol=1e-4)


def test_the_story_at_temperature_0_is_ours(browser, made):
    model, tok = made
    ids = [tok.eot_id, *tok.encode_ordinary("Once upon")]
    [ours] = generate_batch(model, [ids], max_new_tokens=48, temperature=0, stop_ids=[tok.eot_id])
    assert len(set(ours)) > 8  # it is no text of one token again and again
    browser.run("element('prompt').value = 'Once upon', element('temperature').value = 0, element('length').value = 48")
    browser.run("begin()")
    assert browser.run("story.map((token) => token.id)") == ids + ours
    shown = codecs.getincrementaldecoder("utf-8")("replace").decode(tok.decode_bytes(ids[1:] + ours))
    assert browser.run("element('story').textContent") == shown
    with torch.inference_mode():
        probabilities = model(torch.tensor([ids + ours]))[0].softmax(-1)
    for place, shown in enumerate(browser.run("story.map((token) => token.probabilities)")[1:]):
        expected = probabilities[place].topk(8)
        assert [share for _, share in shown[:8]] == pytest.approx(expected.values.tolist(), abs=1e-4)
        assert dict(shown) == pytest.approx({id: probabilities[place, id].item() for id, _ in shown}, abs=1e-4)
        assert (ids + ours)[place + 1] in [id for id, _ in shown]


def test_a_story_ends_where_the_model_ends_it(browser, made):
    browser.run(
        "element('prompt').value = 'Once', window.kept = sample, sample = () => story.length < 9 ? 70 : described.stopIds[0]"
    )
    browser.run("begin()")
    assert browser.run("sample = kept, story.length") == 9 and browser.run("story.at(-1).id") == 70
    assert re.match("[1-9] tokens, [0-9]+ a second", browser.run("element('status').textContent"))


def test_tokens_are_drawn_by_their_probability(browser, made):
    logits = [0.0, 2.0, -1.0, 1.0]
    drawn = browser.run(f"Array.from({{length: 1000}}, (_, i) => sample(Float32Array.from({logits}), 0.5, (i + 0.5) / 1000))")
    shares = torch.tensor(logits).div(0.5).softmax(-1)
    assert drawn == sorted(drawn)
    for id, share in enumerate(shares.tolist()):
        assert drawn.count(id) == pytest.approx(1000 * share, abs=1.5)
    assert browser.run("sample(Float32Array.from([0, 1, 1]), 1, 0.9999999999)") in (1, 2)  # and not beyond the last
    assert browser.run("sample(Float32Array.from([0, 1, 1]), 0)") == 1


def test_every_half_is_read_as_numpy_reads_it(browser, made):
    halves = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16).float()
    finite = halves.isfinite()
    found = torch.tensor(browser.run("Array.from(fromHalf(Uint16Array.from({length: 65536}, (_, i) => i)))"))
    assert torch.equal(found[finite], halves[finite])


# ---- text ----


def test_ids_are_ours_for_any_text(browser, made):
    _, tok = made
    texts = [TEXT, *(mixed_text(seed, 100) for seed in range(30)), "a" * 300, " " * 77, "\r\n\0\x7f<|endoftext|>"]
    assert browser.run(f"{js(texts)}.map((text) => tokenizer.encode(text))") == [tok.encode_ordinary(text) for text in texts]


def test_pieces_that_are_tokens_before_any_merge_and_other_numbers_of_ids_are_kept(browser, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT], 256 + 60)
    tok.save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    swapped = dict(zip(vocab, reversed(vocab.values()), strict=True))
    content["model"] |= {"vocab": swapped | {"time,": len(vocab) + 1}, "ignore_merges": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    other = Tokenizer.load(tmp_path / "tokenizer.json")
    pattern_of_words = other._cut(b"time,")
    found = browser.run(f"new Tokenizer({js(html.describe_tokenizer(other))}).encode({js(TEXT)})")
    assert found == other.encode_ordinary(TEXT) and len(pattern_of_words) == 2


# ---- the page ----


def test_nothing_of_a_name_a_prompt_or_a_story_is_markup(browser, made):
    assert browser.run("element('name').textContent") == "<b>a & b" and browser.run("element('name').children.length") == 0
    attack = "<img src=x onerror='window.attacked=1'></script><script>window.attacked=1</script>&lt;"
    browser.run(f"element('prompt').value = {js(attack)}, element('length').value = 16")
    browser.run("begin()")
    assert browser.run("element('story').textContent").startswith(attack)
    assert browser.run("[...document.querySelectorAll('img')].length + (window.attacked ?? 0)") == 0
    assert browser.run("element('story').querySelectorAll(':not(span)').length") == 0
    assert browser.errors == []


def test_a_special_token_in_a_prompt_is_refused(browser, made):
    browser.run("element('prompt').value = 'a<|endoftext|>b', element('story').replaceChildren(), story = []")
    browser.run("begin()")
    assert "holds <|endoftext|>" in browser.run("element('status').textContent") and browser.run("story.length") == 0


@pytest.mark.parametrize("text", ["\ufeffa", "a\ufeff\ufeff b"])
def test_a_byte_order_mark_is_text(text, browser, made):
    browser.run(f"element('prompt').value = {js(text)}, element('length').value = 16")
    browser.run("begin()")
    assert browser.run("story.map((token) => token.id)")[1:-16] == made[1].encode_ordinary(text)
    assert browser.run("element('story').textContent").startswith(text)


def test_a_token_is_shown_so_that_it_can_be_told_from_others(browser, made):
    _, tok = made
    word = next(id for id in range(tok.vocab_size) if regex.fullmatch(b" [a-z]+", tok.token_bytes(id)))
    shown = [browser.run(f"tokenizer.show({id})") for id in (32, 10, 9, 195, 97, word)]
    assert shown == ["␣", "↵", "⇥", "c3", "a", "␣" + tok.decode([word])[1:]]


def test_a_browser_that_cannot_says_why(browser, made, tmp_path):
    save_model(tmp_path / "m")
    write_html(tmp_path / "m", tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    (tmp_path / "m.html").write_text(page.replace('"pattern":"', '"pattern":"(?<=('), encoding="utf-8")
    with Browser(tmp_path / "profile") as other:
        other.open(tmp_path / "m.html")
        assert "This browser cannot run the model (Invalid regular expression" in other.run("element('status').textContent")
        assert other.run("element('write').disabled") and other.run("element('name').textContent") == "m"


def test_halves_of_characters_do_no_harm(browser, made):
    browser.run("element('prompt').value = 'a\\ud800b', element('length').value = 16")
    browser.run("begin()")
    assert browser.run("element('story').textContent").startswith("a\ufffdb")


def test_writing_stops_at_once_and_begins_again(browser, made):
    browser.run("element('prompt').value = 'Once', element('length').value = 1024, element('temperature').value = 1")
    browser.run("window.kept = sample, sample = () => 70, window.ended = begin(), null")  # nothing ends it
    browser.run("(async () => { while (story.length < 9) await new Promise((resolve) => setTimeout(resolve)) })()")
    assert browser.run("element('write').textContent") == "Stop"
    browser.run("element('write').click(), window.ended")
    written = browser.run("story.length")
    assert 3 < written < 1000 and browser.run("element('write').textContent") == "Again"
    browser.run("element('length').value = 16, element('write').click(), running")
    assert browser.run("story.length") == browser.run("tokenizer.encode('Once').length") + 17
    browser.run("sample = kept, null")


def test_the_page_gets_its_turn_while_it_writes(browser, made):
    browser.run(
        "element('prompt').value = 'Once', element('length').value = 1024, window.kept = sample, sample = () => 70, null"
    )
    turns = browser.run("""(async () => {
        let turns = 0;
        const timer = setInterval(() => turns++);
        await begin();
        clearInterval(timer);
        return turns;
    })()""")
    assert browser.run("story.length") > 1024 and turns > 0
    browser.run("sample = kept, null")


def test_a_touched_token_shows_what_else_it_might_have_been_and_goes_on_with_it(browser, made):
    browser.run("element('prompt').value = 'Once upon a time', element('length').value = 32, element('temperature').value = 0")
    browser.run("begin()")
    before = browser.run("story.map((token) => token.id)")
    place = len(before) - 10
    browser.run(f"story[{place}].span.click()")
    assert not browser.run("element('details').hidden")
    rows = browser.run("[...document.querySelectorAll('#likely button')].map((row) => row.className)")
    assert rows.count("chosen") == 1 and len(rows) in (8, 9)
    shown = browser.run(f"story[{place}].probabilities.map(([id]) => id)")
    other = next(i for i, id in enumerate(shown) if id not in (before[place], browser.run("described.stopIds[0]")))
    browser.run(f"document.querySelectorAll('#likely button')[{other}].click(), running")
    after = browser.run("story.map((token) => token.id)")
    assert after[:place] == before[:place] and after[place] == shown[other]
    assert browser.run("document.querySelectorAll('#story span').length") == len(after)
    fresh = browser.run(f"(model.length = 0, {after}.map((id) => model.read(id)).at(-1).slice(0, 20).join())")
    assert fresh == browser.run(f"(model.length = {len(after) - 1}, model.read({after[-1]}).slice(0, 20).join())")
    browser.run(f"story[{place}].span.click()")  # the token that was chosen knows what else it might have been
    assert browser.run(f"story[{place}].probabilities.map(([id]) => id)") == shown


def test_two_clicks_and_clicks_while_it_writes_give_one_story(browser, made):
    browser.run("element('prompt').value = 'Once upon a time', element('length').value = 256, element('temperature').value = 1")
    browser.run("begin()")
    browser.run("story[20].span.click()")
    browser.run("window.rows = [...document.querySelectorAll('#likely button')].filter((row) => !row.disabled), null")
    browser.run("rows[1].click(), rows[1].click(), new Promise((done) => setTimeout(done, 30)).then(() => rows[0].click())")
    browser.run("new Promise((done) => setTimeout(done, 50)).then(() => begin())")
    browser.run("branch(5, 70), branch(3, 71)")
    browser.run("new Promise((done) => setTimeout(done, 300)).then(() => running)")
    ids = browser.run("story.map((token) => token.id)")
    assert ids[0] == made[1].eot_id and ids[3] == 71 and browser.run("model.length") == len(ids)
    assert browser.run("document.querySelectorAll('#story span').length") == len(ids)
    expected = browser.run(f"model.length = 0, Array.from(softmax({ids[:-1]}.map((id) => model.read(id)).at(-1)))")
    assert browser.run("story.at(-1).probabilities")[0][1] == pytest.approx(max(expected), abs=1e-5)


def test_the_arrow_keys_go_from_token_to_token_and_details_close(browser, made):
    browser.run("element('prompt').value = 'Once upon a time', element('length').value = 16")
    browser.run("begin()")
    assert browser.run("element('details').hidden")
    key = "element('story').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', altKey: %s}))"
    browser.run(key % ("ArrowLeft", "false"))
    last = browser.run("story.length - 1")
    assert browser.run("touched") == last
    for name, alt, expected in [("ArrowLeft", "false", -1), ("ArrowLeft", "true", -1), ("ArrowRight", "false", 0)]:
        browser.run(key % (name, alt))
        assert browser.run("touched") == last + expected
    browser.run(key % ("ArrowRight", "false"))
    assert browser.run("touched") == last
    browser.run("element('close').click()")
    assert browser.run("touched") is None and browser.run("element('details').hidden")


def test_ids_without_a_token_are_never_drawn(browser, made):
    browser.run("element('prompt').value = 'Once', element('length').value = 16, window.seen = [], tokenizer.gaps = [70, 71]")
    browser.run("window.kept = sample, sample = (logits) => { seen.push(logits[70], logits[71], logits[72]); return 72 }")
    browser.run("begin()")
    seen = browser.run("sample = kept, tokenizer.gaps = [], seen.map((x) => x === -Infinity)")
    assert seen == [True, True, False] * 16
    assert browser.run(
        "new Tokenizer({sizes: [1, 0, 2], bytes: 'YWJj', byteIds: [], merges: [], wholePieces: [], pattern: 'a'}).gaps"
    ) == [1]


def test_heads_are_shown_and_color_the_story(browser, made):
    browser.run("element('prompt').value = 'Once upon a time', element('length').value = 32")
    browser.run("begin()")
    assert browser.run("document.querySelectorAll('#heads canvas').length") == 2 * 3
    browser.run("story[12].span.click(), document.querySelector('#heads button[data-head=\"1,2\"]').click()")
    assert browser.run("element('view').value") == "attention"
    colors = browser.run("story.map((token) => getComputedStyle(token.span).backgroundColor)")
    assert len(set(colors[1:13])) > 1 and set(colors[13:]) == {"rgba(0, 0, 0, 0)"}
    painted = browser.run(
        "[...document.querySelector('#heads canvas').getContext('2d').getImageData(0, 0, 96, 24).data].filter((x) => x).length"
    )
    assert painted > 20
    browser.run("element('view').value = 'sure', element('view').onchange()")
    assert len(set(browser.run("story.map((token) => getComputedStyle(token.span).backgroundColor)"))) > 2
    browser.run("element('view').value = 'tokens', element('view').onchange()")


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (360, 740)])
def test_everything_fits_on_a_desktop_and_a_phone(width, height, browser, made):
    browser.resize(width, height, width < 500)
    browser.run("element('prompt').value = 'Once upon a time', begin()")
    browser.run("running")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert len(browser.screenshot()) > 10_000
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_the_page_asks_for_nothing_outside(browser, made):
    blocked = browser.run("""new Promise((resolve) => {
        document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => resolve(effectiveDirective));
        fetch('https://example.com').catch(() => setTimeout(() => resolve('was not forbidden'), 200));
    })""")
    assert blocked == "connect-src"
    assert not re.search(r"(?:src|href)=|https?:|import\b", (html.PAGE / "page.html").read_text(encoding="utf-8"))
    browser.errors.clear()  # of what was refused


def write_ids(browser, ids: list[int]):
    """Writes a story of these ids, one after the other, after an empty prompt."""
    browser.run(f"window.kept = sample, window.next = {ids}, sample = () => next.shift() ?? described.stopIds[0], null")
    browser.run("element('prompt').value = '', element('length').value = 16, begin()")
    browser.run("sample = kept, null")


def test_a_character_that_a_branch_cuts_is_whole_again(browser, made):
    write_ids(browser, [0xC3, 0xA9, 98])
    assert browser.run("element('story').textContent") == "éb"
    browser.run("window.kept = sample, sample = () => described.stopIds[0], branch(2, 0xA8)")
    assert browser.run("sample = kept, element('story').textContent") == "è"


def test_rows_say_what_might_have_been_and_the_end_cannot_be_chosen(browser, made):
    write_ids(browser, [97, 98, 99])
    browser.run("story[2].probabilities = [[described.stopIds[0], 0.7], [98, 0.25], [10, 0.05]], show(2)")
    rows = browser.run(
        "[...document.querySelectorAll('#likely button')].map((row) => [row.innerText, row.disabled, row.className])"
    )
    assert [text.split() for text, _, _ in rows] == [["(the", "end)", "70.0%"], ["b", "25.0%"], ["↵", "5.0%"]]
    assert [row[1:] for row in rows] == [[True, ""], [False, "chosen"], [False, ""]]
    assert browser.run("document.querySelector('#likely i').style.width") == "70%"


def test_colors_are_stronger_where_the_model_was_less_sure(browser, made):
    write_ids(browser, [97, 98, 99])
    browser.run(
        "story[1].probabilities = [[97, 0.9]], story[2].probabilities = [[98, 0.25]], element('view').value = 'sure', paint()"
    )
    found = browser.run("story.map((token) => getComputedStyle(token.span).backgroundColor)")
    assert found[:3] == ["rgba(0, 0, 0, 0)", "rgba(232, 89, 12, 0.06)", "rgba(232, 89, 12, 0.45)"]
    browser.run("element('view').value = 'tokens', paint()")
    assert len(set(browser.run("story.map((token) => getComputedStyle(token.span).backgroundColor)"))) == 4


def test_the_mean_of_the_heads_is_a_distribution_and_bars_end_at_the_touched_token(browser, made):
    write_ids(browser, [97, 98, 99])
    browser.run("show(3)")
    heads = torch.tensor(browser.run("[0, 1].flatMap((b) => [0, 1, 2].map((h) => Array.from(model.attention(b, h, 3))))"))
    assert browser.run("Array.from(attentionOf(null))") == pytest.approx(heads.mean(0).tolist(), abs=1e-6)
    browser.run("window.attend = model.attention, model.attention = () => Float32Array.from([0, 0, 0.5, 1]), show(3)")
    bars = browser.run("""(() => {
        const { data } = document.querySelector('#heads canvas').getContext('2d').getImageData(0, 0, 96, 24);
        return [...Array(96).keys()].map((x) => [...Array(24).keys()].filter((y) => data[4 * (96 * y + x) + 3]).length);
    })()""")
    browser.run("model.attention = attend, null")
    assert bars == [0] * 92 + [12, 12, 24, 24]


def test_ctrl_and_enter_write(browser, made):
    write_ids(browser, [97])
    browser.run("window.kept = sample, sample = () => 98, element('prompt').value = 'a', element('length').value = 16, null")
    for is_ctrl in ("false", "true"):
        browser.run(
            f"element('prompt').dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', ctrlKey: {is_ctrl}}})), running"
        )
        assert (browser.run("story.length") == 18) == (is_ctrl == "true")
    browser.run("sample = kept, null")


def test_special_tokens_may_hold_markup_and_are_refused_in_a_prompt(browser, tmp_path):
    save_model(tmp_path / "m", special_tokens=("<|endoftext|>", "</script><b>"))
    write_html(tmp_path / "m", tmp_path / "m.html")
    with Browser(tmp_path / "profile") as other:
        other.open(tmp_path / "m.html")
        other.run("element('prompt').value = 'a</script><b>', begin()")
        assert "the text holds </script><b>" in other.run("element('status').textContent") and other.errors == []
        assert other.run("document.querySelectorAll('b').length") == 0


def test_of_two_merges_of_one_rank_the_left_one_goes_first(browser, made):
    tok = Tokenizer([(97, 97), (256, 97)])
    found = browser.run(f"new Tokenizer({js(html.describe_tokenizer(tok))}).encode('aaaaa aaa')")
    assert found == tok.encode_ordinary("aaaaa aaa")


# ---- the file ----


def test_a_page_is_small_and_holds_what_log_csv_says(tmp_path):
    model, _ = save_model(tmp_path / "m", {"d_model": 96, "num_heads": 8})
    (tmp_path / "m" / "log.csv").write_text("step,tokens,val_bits_per_byte\n1,1000000,\n2,2500000,1.25\n3,3000000,1.5\n")
    main([str(tmp_path / "m"), "--html", str(tmp_path / "m.html")])
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert len(page) < 1.5 * 2 * model.num_parameters() + 100_000
    assert (
        "2 blocks, 8 heads, 96 numbers a token, 306 tokens; after 2.5M tokens 1.250 bits per byte" in page
        and page.count("</script>") == 3
    )


def test_what_the_page_cannot_hold_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "m"
    model, _ = save_model(folder)
    with torch.no_grad():
        model.wte.weight[0, 0] = 70_000
    save_weights(folder, model)
    with pytest.raises(UserError, match="70000, too large for f16, which holds up to 65504; use --onnx"):
        write_html(folder, tmp_path / "m.html")
    save_model(folder)
    monkeypatch.setattr(folder_module, "block_weights", lambda config: {"ffn.gate": (config.d_model,)})
    monkeypatch.setattr(html, "load_model", lambda folder: (model, Tokenizer([])))
    with pytest.raises(UserError, match="this model has others"):
        write_html(folder, tmp_path / "m.html")
    monkeypatch.undo()
    monkeypatch.setattr(html, "MAX_PARAMETERS", model.num_parameters() - 1)
    with pytest.raises(UserError, match="parameters and a page holds"):
        write_html(folder, tmp_path / "m.html")
    assert not list(tmp_path.glob("m.html*"))


@pytest.mark.filterwarnings("ignore:.*may cut text in another way")
def test_a_model_with_a_pattern_that_cannot_be_said_is_refused(tmp_path):
    save_model(tmp_path / "m", pattern=r"\b\w+|\W")
    with pytest.raises(UserError, match="cannot be said in JavaScript"):
        write_html(tmp_path / "m", tmp_path / "m.html")
    assert dataclasses.asdict(load_model(tmp_path / "m")[0].config)["d_model"] == 24


# ---- prompts and answers ----


@pytest.fixture(scope="module")
def asked(browser, tmp_path_factory):
    """A page of a model that answers, its model, and its tokenizer."""
    folder = tmp_path_factory.mktemp("asked")
    model, tok = save_model(folder / "model", special_tokens=("<|endoftext|>", *FRAME_TOKENS))
    write_html(folder / "model", folder / "page.html")
    browser.errors.clear()
    browser.open(folder / "page.html")
    return model, tok


@pytest.mark.parametrize("prompt", ["Who found it?", "", "<|end|><|assistant|>Zoë 🙂"])
def test_a_prompt_on_the_page_is_answered_as_here(prompt, browser, asked):
    model, tok = asked
    ids = tok.encode_prompt(prompt)
    [ours] = generate_batch(model, [ids], max_new_tokens=48, temperature=0, stop_ids=tok.stop_ids)
    browser.run(f"element('prompt').value = {js(prompt)}, element('temperature').value = 0, element('length').value = 48")
    browser.run("begin()")
    assert browser.run("story.map((token) => token.id)") == ids + ours and ours
    answer = codecs.getincrementaldecoder("utf-8")("replace").decode(tok.decode_bytes(ours))
    assert browser.run("element('story').textContent") == f"{prompt}\n\n{answer}"


@pytest.mark.parametrize("end", ["<|end|>", "<|endoftext|>"])
def test_an_answer_on_the_page_ends_where_the_model_ends_it(end, browser, asked):
    _, tok = asked
    ids = tok.encode_prompt("Who?")
    scripted = f"sample = () => story.length < {len(ids) + 3} ? 70 : {tok.special_tokens[end]}"
    browser.run(f"element('prompt').value = 'Who?', element('length').value = 20, window.kept = sample, {scripted}, null")
    browser.run("begin()")
    assert browser.run("sample = kept, story.map((token) => token.id)") == [*ids, 70, 70, 70]
