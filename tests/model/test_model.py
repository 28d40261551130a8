import math
from functools import partial

import pytest
import torch
from helpers import tiny_model
from torch.nn import functional as F

from alilama.model.attention import alibi_bias, alibi_slopes, choose_attention, masked_attention
from alilama.model.folder import save_description, save_weights
from alilama.model.model import TEACHER_SHARE, Attention, Ensemble, ModelConfig

VOCAB = 97


@pytest.fixture
def model():
    return tiny_model(VOCAB)


def random_ids(*shape, seed=0):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def test_logits_are_the_forward_pass_of_the_design_written_out(model):
    def norm(x, weight):
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5) * weight

    def exact_gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    bias = alibi_bias(torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256], dtype=torch.float64), 9)
    ids = random_ids(2, 9)
    x = model.wte.weight[ids]
    for block in model.blocks:
        x = x + block.attn(norm(x, block.norm_1.weight), partial(masked_attention, bias=bias))
        hidden = exact_gelu(norm(x, block.norm_2.weight) @ block.ffn.up_proj.weight.T)
        x = x + hidden @ block.ffn.down_proj.weight.T
    expected = norm(x, model.norm_f.weight) @ model.wte.weight.T
    torch.testing.assert_close(model(ids), expected, atol=1e-6, rtol=0)


def test_future_tokens_do_not_change_past_logits(model):
    ids = random_ids(2, 20)
    edited = ids.clone()
    edited[:, 12:] = (edited[:, 12:] + 1) % VOCAB
    before, after = model(ids), model(edited)
    torch.testing.assert_close(after[:, :12], before[:, :12], atol=1e-5, rtol=0)
    assert ((after[:, 12:] - before[:, 12:]).abs().amax(-1) > 1e-3).all()


def test_the_order_of_the_past_changes_the_logits(model):
    ids = random_ids(1, 12)
    reordered = torch.cat([ids[:, :-1].flip(1), ids[:, -1:]], dim=1)
    assert (model(ids)[0, -1] - model(reordered)[0, -1]).abs().max() > 1e-3


def test_attention_sees_distances_and_no_absolute_positions():
    torch.manual_seed(3)
    attention = Attention(ModelConfig(VOCAB, 32, 1, 8, 128, 16)).double()
    x = torch.randn(1, 6, 32, dtype=torch.float64)
    shifted = torch.cat([torch.zeros(1, 40, 32, dtype=torch.float64), x], dim=1)
    slopes = alibi_slopes(8).double()
    y, y_shifted = (attention(each, choose_attention(slopes, each.shape[1], 4))[:, -6:] for each in (x, shifted))
    # The zeros before it take weight but add nothing, so each head's output shrinks by a factor of its own: undo it by
    # comparing within a head, where a position embedding of any kind would show.
    heads, heads_shifted = (
        torch.linalg.solve(attention.out_proj.weight, each.transpose(1, 2)).transpose(1, 2) for each in (y, y_shifted)
    )
    factors = (heads_shifted / heads).unflatten(-1, (8, 4))
    torch.testing.assert_close(factors, factors[..., :1].expand_as(factors), atol=1e-6, rtol=1e-6)
    assert (factors < 1).all() and (factors > 0).all()


def test_a_model_runs_at_lengths_beyond_the_trained(model):
    ids = random_ids(1, 10 * model.config.max_seq_len)
    logits = model(ids)
    assert logits.shape == (1, 160, VOCAB) and logits.isfinite().all()
    torch.testing.assert_close(logits[:, :16], model(ids[:, :16]), atol=1e-5, rtol=0)


def test_the_output_projection_is_the_embedding(model):
    two_dimensional = [name for name, parameter in model.named_parameters() if VOCAB in parameter.shape]
    assert two_dimensional == ["wte.weight"]
    ids = random_ids(1, 5)
    before = model(ids)
    with torch.no_grad():
        model.wte.weight[[i for i in range(VOCAB) if i not in ids[0].tolist()]] *= 2
    after = model(ids)
    unread = torch.tensor([i for i in range(VOCAB) if i not in ids[0].tolist()])
    torch.testing.assert_close(after[..., unread], 2 * before[..., unread])
    torch.testing.assert_close(after[..., ids[0]], before[..., ids[0]])


def test_every_parameter_gets_a_gradient(model):
    model.loss(random_ids(2, 8), random_ids(2, 8, seed=1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_there_are_no_biases_and_the_number_of_parameters_is_that_of_the_design():
    model = tiny_model(VOCAB, d_model=24, blocks=3, num_heads=2, hidden_dim=50)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]
    C, F_, blocks = 24, 50, 3
    assert model.num_parameters() == VOCAB * C + blocks * (4 * C * C + 2 * C * F_ + 2 * C) + C


def test_initial_weights_are_xavier_normal_and_the_norms_are_one():
    model = tiny_model(500, d_model=128, num_heads=8, blocks=3)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all()
        else:
            deviation = math.sqrt(2 / sum(parameter.shape))
            if "out_proj" in name or "down_proj" in name:  # added to the residual stream, six times
                deviation /= math.sqrt(6)
            assert abs(parameter.std().item() / deviation - 1) < 0.03, name
            assert abs(parameter.mean().item()) < 0.03 * deviation, name


def test_the_loss_before_training_is_near_that_of_guessing():
    model = tiny_model(4096, d_model=64, num_heads=8)
    ids = torch.randint(4096, (4, 64), generator=torch.Generator().manual_seed(0))
    assert abs(model.loss(ids[:, :-1], ids[:, 1:]).item() - math.log(4096)) < 0.1


def test_loss_is_the_mean_log_probability_of_the_targets(model):
    ids, targets = random_ids(2, 5), random_ids(2, 5, seed=1)
    probabilities = model(ids).double().softmax(-1)
    nats = [-math.log(probabilities[b, t, targets[b, t]]) for b in range(2) for t in range(5)]
    assert model.loss(ids, targets).item() == pytest.approx(sum(nats) / 10, rel=1e-5)


def test_dropout_acts_only_in_training():
    model, ids = tiny_model(VOCAB, dropout=0.5), random_ids(1, 8)
    torch.testing.assert_close(model(ids), tiny_model(VOCAB, dropout=0.0)(ids), atol=0, rtol=0)
    model.train()
    assert not torch.allclose(model(ids), model(ids))
    without = tiny_model(VOCAB).train()
    torch.testing.assert_close(without(ids), without(ids), atol=0, rtol=0)


def test_dropout_takes_the_embedding_and_what_each_half_of_a_block_adds_to_it():
    model, ids = tiny_model(VOCAB).train(), random_ids(1, 8)
    for block in model.blocks:
        block.dropout.p = 1.0
    assert torch.equal(model.hidden(ids), model.norm_f(model.wte(ids)))
    model.dropout.p = 1.0
    assert not model.hidden(ids).any()


def test_a_model_can_learn_one_batch_by_heart():
    model = tiny_model(VOCAB).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    windows = random_ids(4, 17)
    for _ in range(120):
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize("num_heads", [8, 12])
def test_transformers_reads_the_folder_and_gives_the_same_logits(num_heads, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    V, T = tokenizer.vocab_size, 16
    model = tiny_model(V, d_model=4 * num_heads, num_heads=num_heads, max_seq_len=T)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    save_description(tmp_path, model.config, tokenizer)
    save_weights(tmp_path, model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == "MptForCausalLM"
    for length in (T, 5 * T):
        ids = torch.randint(V, (2, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            torch.testing.assert_close(theirs(ids).logits, model(ids), atol=2e-4, rtol=0)


def test_transformers_reads_a_model_that_was_trained_with_dropout(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_model(tokenizer.vocab_size, dropout=0.1)
    save_description(tmp_path, model.config, tokenizer)
    save_weights(tmp_path, model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), atol=2e-4, rtol=0)


def test_transformers_encodes_and_writes_the_same_text(tokenizer, model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alilama.model.folder import load_model
    from alilama.writing.streams import generate_batch

    prompt = "Once upon a time, Zoë found a cake."
    their_tokenizer = AutoTokenizer.from_pretrained(model_folder)
    assert their_tokenizer(prompt)["input_ids"] == tokenizer.encode_document(prompt)
    assert their_tokenizer.eos_token_id == their_tokenizer.bos_token_id == tokenizer.eot_id
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    ours = generate_batch(load_model(model_folder)[0], [ids], max_new_tokens=20, temperature=0, stop_ids=[tokenizer.eot_id])[0]
    theirs = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    written = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)[0, len(ids) :]
    assert ours and written.tolist()[: len(ours)] == ours


def test_gelu_is_exact_and_not_the_tanh_formula():
    model = tiny_model(VOCAB).double()
    x = torch.linspace(-3, 3, 32, dtype=torch.float64)[None, None]
    hidden = x @ model.blocks[0].ffn.up_proj.weight.T
    down = model.blocks[0].ffn.down_proj.weight.T
    found = model.blocks[0].ffn(x)
    torch.testing.assert_close(found, (hidden * 0.5 * torch.erfc(-hidden / math.sqrt(2))) @ down, atol=1e-10, rtol=0)
    assert (found - F.gelu(hidden, approximate="tanh") @ down).abs().max() > 1e-6


def test_the_logits_of_an_ensemble_are_the_mean_of_its_models():
    odd = {"d_model": 54, "num_heads": 6, "blocks": 1}  # heads that do not divide the width of all
    models = [tiny_model(VOCAB, seed=1, **odd), tiny_model(VOCAB), tiny_model(VOCAB, seed=2, hidden_dim=256)]
    ensemble, ids = Ensemble(models), random_ids(2, 8)
    found = F.linear(ensemble.hidden(ids), ensemble.wte.weight)
    torch.testing.assert_close(found, torch.stack([model(ids) for model in models]).mean(0))
    assert ensemble.num_parameters() == sum(model.num_parameters() for model in models)


def test_a_teacher_of_another_shape_makes_up_its_share_of_the_targets_and_gets_no_gradients():
    student, teacher = tiny_model(VOCAB), tiny_model(VOCAB, seed=1, d_model=64, blocks=1)
    ids, targets = random_ids(2, 8), random_ids(2, 8, seed=1)
    expected = teacher(ids).softmax(-1)
    by_teacher = -(student(ids).log_softmax(-1) * expected).sum(-1).mean()
    loss = student.loss(ids, targets, Ensemble([teacher]))
    mixed = (1 - TEACHER_SHARE) * student.loss(ids, targets) + TEACHER_SHARE * by_teacher
    assert loss.item() == pytest.approx(mixed.item(), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
