"""What one step computes: gradients, clipping, an update, counts."""

import math

import pytest
import torch
from helpers import tiny_model
from steps import VOCAB, T, assert_close, batches, masked_batches, unmasked, weights

from alilama.training.optim import make_optimizers, set_learning_rate
from alilama.training.step import FIRST_SCALE, SCALE_GROWS_AFTER


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_are_those_of_a_plain_training_loop(make_trainer, make_config, optimizer):
    trainer = make_trainer(optimizer=optimizer, grad_clip=0.3)
    model = tiny_model(VOCAB, max_seq_len=T).train()
    optimizers, losses = make_optimizers(model, make_config(optimizer=optimizer)), []
    for i, windows in enumerate(batches(5)):
        trainer(windows, 0.01 / (i + 1))
        value = torch.nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        value.backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3) > 0.3
        set_learning_rate(optimizers, 0.01 / (i + 1))
        for each in optimizers:
            each.step()
            each.zero_grad()
        losses.append(value.item())
    assert_close(weights(trainer), dict(model.named_parameters()), 1e-4)
    assert trainer.step.read_losses() == (pytest.approx(sum(losses) / 5, rel=1e-5), 0)
    assert trainer.step.read_losses() == (None, 0)
    trainer(windows, 0.01)
    assert trainer.step.read_losses()[0] == pytest.approx(model.loss(windows[:, :-1], windows[:, 1:]).item(), rel=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_only_gradients_that_are_too_long_are_clipped(make_trainer, precision):
    windows = batches(1)[0]
    plain = make_trainer()
    plain._compute_gradients(windows)
    norm = plain.step.gradients.norm().item()
    for grad_clip, expected in ((norm / 3, norm / 3), (3 * norm, norm)):
        trainer = make_trainer(precision, grad_clip=grad_clip)
        trainer(windows, 0.01)
        assert trainer.step.gradients.norm().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(make_trainer, optimizer, precision):
    trainer = make_trainer(precision, optimizer=optimizer)
    first, *rest = batches(4)
    trainer(first, 0.01)
    mean, skipped = trainer.step.read_losses()
    assert math.isfinite(mean) and skipped == 0
    before, state = weights(trainer), [optimizer.state_dict() for optimizer in trainer.step.optimizers]
    tensors = [(tensor, tensor.clone()) for each in state for values in each["state"].values() for tensor in values.values()]
    loss_of = trainer.step.loss_of
    trainer.step.loss_of = lambda *inputs: loss_of(*inputs) * math.nan
    for windows in rest[:2]:
        trainer(windows, 0.01)
    assert_close(weights(trainer), before, 0)
    assert all(torch.equal(now, then) for now, then in tensors)
    assert trainer.step.read_losses() == (None, 2)
    trainer.step.loss_of = loss_of
    trainer(rest[2], 0.01)
    assert trainer.step.read_losses()[1] == 0
    assert any(not torch.equal(now, then) for now, then in tensors)


def test_in_fp16_the_scale_of_the_loss_halves_after_an_overflow_and_grows_after_many_good_steps(make_trainer):
    trainer = make_trainer(torch.float16)
    windows = batches(1)[0]
    trainer(windows, 0.01)
    assert trainer.step.counts["scale"] == FIRST_SCALE
    loss_of = trainer.step.loss_of
    trainer.step.loss_of = lambda *inputs: loss_of(*inputs) * 1e30
    trainer(windows, 0.01)
    assert (
        trainer.step.counts["scale"] == FIRST_SCALE / 2
        and trainer.step.read_losses()[1] == 1
        and trainer.step.counts["good_steps"] == 0
    )
    trainer.step.loss_of = loss_of
    trainer.step.counts["good_steps"].fill_(SCALE_GROWS_AFTER - 2)
    trainer(windows, 0.01)
    assert trainer.step.counts["scale"] == FIRST_SCALE / 2
    trainer(windows, 0.01)
    assert trainer.step.counts["scale"] == FIRST_SCALE and trainer.step.counts["good_steps"] == 0


def test_a_step_goes_on_from_its_state_bit_for_bit(make_trainer):
    whole, before, after = make_trainer(), make_trainer(), make_trainer()
    windows = batches(6)
    for each in windows:
        whole(each, 0.01)
    for each in windows[:3]:
        before(each, 0.01)
    after.step.load_state_dict(before.step.state_dict())
    for each in windows[3:]:
        after(each, 0.01)
    assert_close(weights(after), weights(whole), 0)
    assert after.step.read_losses() == whole.step.read_losses()


def test_a_step_that_goes_on_keeps_the_settings_of_its_own_optimizers(make_trainer):
    before, after = make_trainer(weight_decay=0.1), make_trainer(weight_decay=0.3)
    before(batches(1)[0], 0.01)
    after.step.load_state_dict(before.step.state_dict())
    groups = [group for optimizer in after.step.optimizers for group in optimizer.param_groups]
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}


@pytest.mark.parametrize(
    ("optimizer", "damage"),
    [
        ("AdamW", None),
        ("AdamW", {"exp_avg": torch.zeros(0)}),
        ("AdamW", {"exp_avg_sq": torch.zeros(3)}),
        ("AdamW", {"step": torch.zeros(2)}),
        ("Muon", None),
        ("Muon", {"momentum": torch.zeros(3)}),
        ("Muon", {"row_squares": torch.zeros(3)}),
        ("Muon", {"more": torch.zeros(3)}),
    ],
)
def test_a_state_of_an_optimizer_that_does_not_fit_is_refused(optimizer, damage, make_trainer):
    trainer = make_trainer(optimizer="muon")
    trainer(batches(1)[0], 0.01)
    state = trainer.step.state_dict()
    kept = state["optimizers"][["AdamW", "Muon"].index(optimizer)]["state"]
    kept[0] = {} if damage is None else kept[0] | damage
    with pytest.raises(ValueError, match=f"what {optimizer} remembers"):
        make_trainer(optimizer="muon").step.load_state_dict(state)


def test_a_run_that_goes_on_in_fp16_begins_with_a_scale(make_trainer):
    full, half = make_trainer(), make_trainer(torch.float16)
    half.step.load_state_dict(full.step.state_dict())
    assert half.step.counts["scale"] == FIRST_SCALE
    half.step.counts["scale"].fill_(8)
    again = make_trainer(torch.float16)
    again.step.load_state_dict(half.step.state_dict())
    assert again.step.counts["scale"] == 8


# ---- tokens that are not learned ----

MASKED = {"may_ignore": True}


@pytest.mark.parametrize("micro_batch, compile_model", [(1, False), (3, False), (8, False), (3, True)])
def test_steps_with_tokens_that_are_not_learned_are_those_of_a_plain_loop_without_their_losses(
    make_trainer, make_config, micro_batch, compile_model
):
    trainer = make_trainer(more=MASKED, optimizer="adamw", grad_clip=0.3, micro_batch=micro_batch, compile_model=compile_model)
    model = tiny_model(VOCAB, max_seq_len=T).train()
    optimizers, losses = make_optimizers(model, make_config(optimizer="adamw")), []
    for windows in masked_batches(3):
        trainer(windows, 0.01)
        logits, targets = model(unmasked(windows)[:, :-1]), windows[:, 1:].clamp(min=-1)
        value = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        for each in optimizers:
            set_learning_rate(optimizers, 0.01)
            each.step()
            each.zero_grad()
        losses.append(value.item())
    assert_close(weights(trainer), dict(model.named_parameters()), 2e-4)
    assert trainer.step.read_losses() == (pytest.approx(sum(losses) / 3, rel=1e-5), 0)


def test_a_token_that_is_not_learned_is_read_and_not_learned(make_trainer):
    trainer, windows = make_trainer(more=MASKED), masked_batches(1)[0]

    def gradients_of(windows):
        trainer._compute_gradients(trainer._share(windows))
        return trainer.step.gradients.clone()

    expected, last, first = gradients_of(windows), windows.clone(), windows.clone()
    last[:, -1] = torch.where(last[:, -1] < 0, ~((unmasked(last)[:, -1] + 1) % VOCAB), last[:, -1])
    first[1:3, 0] = ~((unmasked(first)[1:3, 0] + 1) % VOCAB)
    assert not torch.equal(last, windows) and torch.equal(gradients_of(last), expected)  # only predicted, and in no loss
    assert not torch.equal(gradients_of(first), expected)  # others are predicted from it
    assert torch.equal(gradients_of(windows), expected)


def test_a_batch_of_which_nothing_is_learned_has_no_gradients_and_no_loss(make_trainer):
    trainer = make_trainer(more=MASKED)
    trainer._compute_gradients(trainer._share(~batches(1)[0]))
    assert (trainer.step.buffer == 0).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_where_all_is_learned_steps_are_those_without(make_trainer, precision):
    plain, masked = make_trainer(precision), make_trainer(precision, more=MASKED)
    for windows in batches(3):
        plain(windows, 0.01)
        masked(windows, 0.01)
    assert_close(weights(masked), weights(plain), 1e-5)
    assert masked.step.read_losses()[0] == pytest.approx(plain.step.read_losses()[0], rel=1e-6)
