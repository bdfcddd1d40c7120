"""The objective's terms: numbers by hand, and what must not change them (KL gradients: test_kl, options: test_options).

Gradients are taken with respect to TokenScores, one number a token. Scores of tokens that are no actions are NaN in
these tests, so that whatever reads one shows; `evaluate` checks that none leaves a trace.
"""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  ConfigError,
  CountdownConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import AGGREGATIONS, POLICY_LOSSES, Term, global_norms, objective, rl_terms, sft_terms
from o1jax.types import Experience, Hyperparams, TokenScores, merge_stats, resolve_stats

R_MAX = 5
LENGTHS = (4, 1, 3, 2)
NORMS = jax.jit(global_norms, static_argnums=(1, 2))

CLIPS = {"clip_low": 0.2, "clip_high": 0.3}
OPTIONS = {
  "reinforce": {},
  "ppo_clip": CLIPS,
  "dual_clip": {**CLIPS, "dual_clip": 3.0},
  "cispo": {"clip_high": 1.0},
  "gspo": CLIPS,
  "rloo": CLIPS,
  "sapo": {},
}


NATURAL = {kind: "token_mean" for kind in OPTIONS} | {"rloo": "seq_mean_token_mean"}


def config(kind="reinforce", aggregation=None, kl=KLConfig(), entropy=0.0, **options) -> RLConfig:
  loss = LossConfig(kind, aggregation or NATURAL[kind], **{**OPTIONS[kind], **options})
  epochs = 1 if kind == "reinforce" else 2  # without a ratio there is one step a rollout
  return RLConfig(
    steps=1, prompts=2, samples=2, max_tokens=R_MAX, epochs=epochs, loss=loss, kl=kl, entropy=entropy
  )


def run_config(cfg: RLConfig) -> TrainConfig:
  """A valid run around `cfg`."""
  model = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
  run = TrainConfig("test", model, CountdownConfig(), rl=cfg)
  run.validate()
  return run


def hyperparams_of(cfg: RLConfig, **changes: float) -> Hyperparams:
  """The hyperparameters that a run with `cfg` would learn with, some of them changed."""
  run = run_config(cfg)
  numbers = {name: jnp.float32(value) for name, value in changes.items()}
  return hyperparams(run, rl_learner(run), 1) | numbers


def batch(lengths=LENGTHS, seed=0) -> tuple[TokenScores, Experience]:
  """Off-policy numbers for `len(lengths)` completions in rows of 2 prompt, at most 4 action and else padding columns.

  All tests share the shape [4, 8] where they can, so that few programs are compiled: missing rows are empty.
  """
  rng, lengths = np.random.default_rng(seed), np.resize([*lengths, *[0] * 4], 4)
  column = np.arange(8) - 2
  action = (column >= 0) & (column < lengths[:, None])
  draw = lambda scale: rng.normal(0, scale, action.shape)
  place = lambda value, other: np.where(action, value, other).astype(np.float32)
  logp = -np.abs(draw(1.0)) - 0.1
  scores = TokenScores(*(place(v, np.nan) for v in (logp, *(np.abs(draw(1.0)) for _ in range(3)))))
  old = logp + draw(0.5)
  experience = Experience(
    tokens=np.zeros(action.shape, np.int32),
    segment=((column < lengths[:, None]) & (lengths[:, None] > 0)).astype(np.int32),
    position=np.zeros(action.shape, np.int32),
    is_action=action,
    logp_sampler=place(old + draw(0.01), 0.0),
    logp_old=place(old, 0.0),
    advantage=place(draw(1.0), 0.0),
    weight=place(1.0, 0.0),
    logp_ref=place(logp + draw(0.5), 0.0),
  )
  return scores, experience


def on_actions(experience: Experience, numbers) -> np.ndarray:
  """f32[B, L] with `numbers`, row by row, on the actions and 0 elsewhere."""
  array = np.zeros(experience.is_action.shape, np.float32)
  array[experience.is_action] = numbers
  return array


@functools.cache
def terms_of(cfg: RLConfig, segments: int):
  return rl_terms(cfg, segments=segments)


def evaluate(cfg: RLConfig, scores, experience, *, norms=None, segments=1, terms=None, **changes: float):
  """(loss, TokenScores of gradients, statistics). Gradients off the actions must be exactly 0, all numbers finite."""
  norms = NORMS(experience, R_MAX, segments) if norms is None else norms
  terms = terms_of(cfg, segments) if terms is None else terms
  value = jax.value_and_grad(objective(terms), has_aux=True)
  (loss, stats), grads = value(scores, experience, hyperparams_of(cfg, **changes), norms)
  assert all(np.isfinite(value).all() for value in jax.tree.leaves((loss, grads, stats)))
  for grad in jax.tree.leaves(grads):
    np.testing.assert_array_equal(np.asarray(grad)[~np.asarray(experience.is_action)], 0.0)
  return float(loss), jax.tree.map(np.asarray, grads), stats


def one_completion(logp, old, advantage) -> tuple[TokenScores, Experience]:
  """One completion with these numbers by token; `advantage` is one for all."""
  scores, experience = batch((len(logp),))
  old, logp = on_actions(experience, old), on_actions(experience, logp)
  advantage = on_actions(experience, advantage)
  return scores.replace(logp=logp), experience.replace(logp_old=old, logp_sampler=old, advantage=advantage)


SHORT = (3, 1, 3, 2)  # completions that fit into 4 columns behind one token of prompt


def pack_pairs(tree):
  """Rows 2n and 2n + 1 of every [B, 8] array side by side, less a prompt column and padding: [B / 2, 8]."""
  return jax.tree.map(lambda a: np.concatenate([a[0::2, 1:5], a[1::2, 1:5]], axis=1), tree)


def packed_pairs(experience: Experience) -> Experience:
  """`pack_pairs`, with the second completion of a row told by its segment."""
  second = experience.segment * np.resize([[1], [2]], (len(experience.segment), 1))
  return pack_pairs(experience.replace(segment=second.astype(np.int32)))


# Numbers by hand

# kind: (ratio, advantage, loss, its derivative by lp), with lp = log 1/2, clip to [0.8, 1.3], cispo's cap 2, dual 3.
LOG_HALF = float(np.log(0.5))
SIGMOID_1 = 1 / (1 + float(np.exp(-1.0)))
SIGMOID_105 = 1 / (1 + float(np.exp(-1.05)))
POLICY_BY_HAND = [
  ("reinforce", 1.5, 2.0, -2 * LOG_HALF, -2.0),
  ("reinforce", 9.0, -2.0, 2 * LOG_HALF, 2.0),
  ("ppo_clip", 1.0, 2.0, -2.0, -2.0),
  ("ppo_clip", 1.25, 2.0, -2.5, -2.5),
  ("ppo_clip", 1.5, 2.0, -2.6, 0.0),
  ("ppo_clip", 1.5, -2.0, 3.0, 3.0),
  ("ppo_clip", 0.5, 2.0, -1.0, -1.0),
  ("ppo_clip", 0.5, -2.0, 1.6, 0.0),
  ("dual_clip", 2.0, -2.0, 4.0, 4.0),
  ("dual_clip", 5.0, -2.0, 6.0, 0.0),
  ("dual_clip", 0.5, -2.0, 1.6, 0.0),
  ("dual_clip", 5.0, 2.0, -2.6, 0.0),
  ("cispo", 0.5, 2.0, -LOG_HALF, -1.0),
  ("cispo", 3.0, 2.0, -4 * LOG_HALF, -4.0),
  ("cispo", 3.0, -2.0, 4 * LOG_HALF, 4.0),
  ("sapo", 1.0, 2.0, -4.0, -2.0),
  ("sapo", 1.0, -2.0, 4 / 1.05, 2.0),
  ("sapo", 2.0, 2.0, -8 * SIGMOID_1, -16 * SIGMOID_1 * (1 - SIGMOID_1)),
  ("sapo", 2.0, -2.0, 8 * SIGMOID_105 / 1.05, 16 * SIGMOID_105 * (1 - SIGMOID_105)),
  ("gspo", 1.25, 2.0, -2.5, -2.5),
  ("gspo", 1.5, 2.0, -2.6, 0.0),
  ("rloo", 1.25, 2.0, -2.5, -2.5),
  ("rloo", 0.5, -2.0, 1.6, 0.0),
]


@pytest.mark.parametrize(("kind", "ratio", "advantage", "loss", "slope"), POLICY_BY_HAND)
def test_policy_losses_by_hand(kind, ratio, advantage, loss, slope) -> None:
  scores, experience = one_completion([LOG_HALF], [LOG_HALF - np.log(ratio)], advantage)
  got, grads, _ = evaluate(config(kind), scores, experience)
  assert got == pytest.approx(loss, rel=2e-6)
  np.testing.assert_allclose(grads.logp[experience.is_action], [slope], rtol=2e-6)


@pytest.mark.parametrize(
  ("kind", "ratios", "loss", "slope"),
  [
    ("gspo", (1.2, 0.9), 1.08**0.5, 1.08**0.5 / 2),  # geometric mean, of which each token moves half
    ("gspo", (4.0, 0.25), 1.0, 0.5),  # either token alone would be clipped
    ("gspo", (1.5, 1.5), 1.3, 0.0),
    ("rloo", (1.2, 0.9), 1.08, 1.08),  # product: not normalised by length
    ("rloo", (1.2, 1.2), 1.3, 0.0),  # 1.44 is clipped, though neither token is
  ],
)
def test_sequence_ratios_by_hand(kind, ratios, loss, slope) -> None:
  scores, experience = one_completion([-1.0, -2.0], np.array([-1.0, -2.0]) - np.log(ratios), 1.0)
  got, grads, _ = evaluate(config(kind, "seq_mean_token_mean"), scores, experience)
  assert got == pytest.approx(-loss, rel=2e-6)
  np.testing.assert_allclose(grads.logp[experience.is_action], -slope, rtol=2e-6)


@pytest.mark.parametrize(
  ("aggregation", "expected"),
  [("seq_mean_token_mean", (4 + 2) / 2), ("token_mean", 10 / 4), ("dr_grpo", 10 / (2 * R_MAX))],
)
def test_aggregations_by_hand(aggregation, expected) -> None:
  scores, experience = batch((1, 3))
  losses = on_actions(experience, [4.0, 1.0, 2.0, 3.0])
  scores, experience = scores.replace(logp=-losses), experience.replace(advantage=on_actions(experience, 1.0))
  assert evaluate(config("reinforce", aggregation), scores, experience)[0] == pytest.approx(expected)
  # A weight multiplies its token's loss, and leaves the denominators alone.
  weighted = experience.replace(weight=on_actions(experience, [0.0, 1.0, 1.0, 1.0]))
  share = {"seq_mean_token_mean": 1.0, "token_mean": 6 / 4, "dr_grpo": 6 / (2 * R_MAX)}[aggregation]
  assert evaluate(config("reinforce", aggregation), scores, weighted)[0] == pytest.approx(share)


def test_norms_by_hand() -> None:
  _, experience = batch((4, 1, 3, 0))
  assert [float(n) for n in jax.tree.leaves(NORMS(experience, R_MAX, 1))] == [8.0, 3.0, 15.0]
  # A row without an action is no completion, and two completions of one row are two.
  emptied = experience.replace(is_action=experience.is_action & np.array([[True], [False], [True], [True]]))
  assert [float(n) for n in jax.tree.leaves(NORMS(emptied, R_MAX, 1))] == [7.0, 2.0, 10.0]
  packed = packed_pairs(batch(SHORT)[1])
  assert [float(n) for n in jax.tree.leaves(NORMS(packed, R_MAX, 2))] == [9.0, 4.0, 20.0]


def test_entropy_bonus_is_a_token_mean_whatever_the_aggregation() -> None:
  scores, experience = batch()
  mean = float(np.nanmean(scores.entropy))
  for aggregation in AGGREGATIONS:
    cfg = config("reinforce", aggregation, entropy=0.5)
    loss, grads, stats = evaluate(cfg, scores, experience)
    plain, _, _ = evaluate(cfg, scores, experience, entropy=0.0)
    assert loss - plain == pytest.approx(-0.5 * mean, rel=1e-5)
    np.testing.assert_allclose(grads.entropy[experience.is_action], -0.5 / sum(LENGTHS), rtol=1e-6)
    assert resolve_stats(stats)["entropy"] == pytest.approx(mean, rel=1e-6)


def test_nll_is_a_token_mean() -> None:
  scores, experience = batch()
  loss, grads, stats = evaluate(config(), scores, experience, terms=sft_terms())
  assert loss == pytest.approx(-float(np.nanmean(scores.logp)), rel=1e-6)
  assert resolve_stats(stats)["nll"] == pytest.approx(loss, rel=1e-6)
  np.testing.assert_allclose(grads.logp[experience.is_action], -1 / sum(LENGTHS), rtol=1e-6)


def test_statistics_by_hand() -> None:
  # Ratios 2 and 1/2 against [0.8, 1.3]: cut above where A > 0, and below where A < 0.
  scores, experience = batch((2, 2))
  put = functools.partial(on_actions, experience)
  experience = experience.replace(
    logp_old=put(-1.0 - np.log([2.0, 2.0, 0.5, 1.0])), advantage=put([1.0, -1.0, -1.0, 1.0]),
    logp_sampler=put([-1.5, -1.0, -1.0, -1.0]),
  )  # fmt: skip
  stats = resolve_stats(evaluate(config("ppo_clip"), scores.replace(logp=put(-1.0)), experience)[2])
  assert stats["clip_ratio/high_mean"] == 0.25
  assert stats["clip_ratio/low_mean"] == 0.25
  assert stats["clip_ratio/region_mean"] == 0.5
  assert stats["logp_gap/mean"] == 0.125
  assert stats["logp_gap/max"] == 0.5


def test_sequence_losses_count_clipped_completions() -> None:
  # Of three completions the longest is cut: 1/3, though it holds 4 of the 6 tokens (TRL counts so, too).
  scores, experience = batch((4, 1, 1, 0))
  old = np.where(experience.is_action, scores.logp, 0.0)
  old[0] -= 0.5 * experience.is_action[0]
  experience = experience.replace(logp_old=np.float32(old), advantage=on_actions(experience, 1.0))
  stats = resolve_stats(evaluate(config("gspo"), scores, experience)[2])
  assert stats["clip_ratio/high_mean"] == pytest.approx(1 / 3)
  stats = resolve_stats(evaluate(config("ppo_clip"), scores, experience)[2])
  assert stats["clip_ratio/high_mean"] == pytest.approx(4 / 6)


# What must not change them

KL = KLConfig(0.3, "k3")
EVERYTHING = [config(kind, kl=KL, entropy=0.1) for kind in ("gspo", "rloo", "sapo")]
EVERYTHING += [config("ppo_clip", name, kl=KL, entropy=0.1) for name in AGGREGATIONS]
EVERYTHING += [config("gspo", "seq_mean_token_mean", kl=KLConfig(0.3, "k2", times_ratio=True))]
EVERYTHING += [config("ppo_clip", "dr_grpo", kl=KLConfig(0.3, "reverse"))]
every_config = pytest.mark.parametrize("cfg", EVERYTHING, ids=lambda c: f"{c.loss.kind}-{c.loss.aggregation}")


def assert_close(got, expected) -> None:
  jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=3e-6, atol=3e-7), got, expected)


def rows_of(tree, start: int):
  """Rows `start` and `start + 1` of every array: a micro-batch."""
  return jax.tree.map(lambda a: a[start : start + 2], tree)


@every_config
def test_micro_batches_add_up(cfg) -> None:
  scores, experience = batch()
  norms = NORMS(experience, R_MAX, 1)
  loss, grads, stats = evaluate(cfg, scores, experience)
  parts = [evaluate(cfg, *rows_of((scores, experience), start), norms=norms) for start in (0, 2)]
  assert sum(part[0] for part in parts) == pytest.approx(loss, rel=3e-6)
  assert_close(jax.tree.map(lambda *a: np.concatenate(a), *(part[1] for part in parts)), grads)
  merged = functools.reduce(merge_stats, (part[2] for part in parts))
  assert resolve_stats(merged) == pytest.approx(resolve_stats(stats), rel=3e-6, abs=1e-7)


@every_config
def test_packed_rows_are_separate_rows(cfg) -> None:
  scores, experience = batch(SHORT)
  loss, grads, stats = evaluate(cfg, scores, experience)
  packed = evaluate(cfg, pack_pairs(scores), packed_pairs(experience), segments=2)
  assert packed[0] == pytest.approx(loss, rel=3e-6)
  assert_close(packed[1], pack_pairs(grads))
  assert resolve_stats(packed[2]) == pytest.approx(resolve_stats(stats), rel=3e-6, abs=1e-7)


@every_config
def test_padding_changes_nothing(cfg) -> None:
  scores, experience = batch()
  loss, grads, stats = evaluate(cfg, scores, experience)
  shift = lambda a: np.roll(a, -2, axis=1)  # no prompt, and four columns of padding where there were two
  moved = evaluate(cfg, jax.tree.map(shift, scores), jax.tree.map(shift, experience))
  assert moved[0] == pytest.approx(loss, rel=3e-6)
  assert_close(moved[1], jax.tree.map(shift, grads))
  assert resolve_stats(moved[2]) == pytest.approx(resolve_stats(stats), rel=3e-6, abs=1e-7)


def test_wider_rows_change_nothing() -> None:
  cfg, (scores, experience) = config("gspo", "seq_mean_token_mean"), batch()
  value, strengths = jax.jit(jax.grad(objective(terms_of(cfg, 1)), has_aux=True)), hyperparams_of(cfg)
  widen = lambda a: np.pad(a, [(0, 0), (3, 5)])
  wide = jax.tree.map(widen, (scores, experience))
  got, expected = (
    value(*both, strengths, NORMS(both[1], R_MAX, 1))[0] for both in (wide, (scores, experience))
  )
  assert_close(got, jax.tree.map(widen, expected))


@pytest.mark.parametrize("kind", POLICY_LOSSES)
def test_on_policy_every_loss_is_the_policy_gradient(kind) -> None:
  scores, experience = batch()
  # A sequence's ratio carries its tokens' advantages together, so they are equal within a completion here.
  advantage = on_actions(experience, np.repeat([1.0, -2.0, 0.5, -1.0], LENGTHS))
  logp = np.where(experience.is_action, scores.logp, 0.0)
  experience = experience.replace(logp_old=logp, advantage=advantage)
  grads = evaluate(config(kind), scores, experience)[1]
  expected = -advantage / {"rloo": 4}.get(kind, sum(LENGTHS))  # completions, or tokens
  np.testing.assert_allclose(grads.logp, expected, rtol=3e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "reverse", "forward"])
def test_a_term_of_no_strength_leaves_the_gradient_bit_for_bit(estimator) -> None:
  scores, experience = batch()
  plain = evaluate(config("ppo_clip"), scores, experience)
  kl = KLConfig(0.3, estimator, times_ratio=estimator == "k1")
  cfg = config("ppo_clip", kl=kl, entropy=0.1)
  weak = evaluate(cfg, scores, experience, **{"kl.coef": 0.0, "entropy": 0.0})
  jax.tree.map(np.testing.assert_array_equal, weak[1].logp, plain[1].logp)
  assert weak[0] == plain[0]
  strong = evaluate(cfg, scores, experience)
  assert strong[0] != plain[0]


def test_strengths_do_not_recompile() -> None:
  cfg, (scores, experience) = config("ppo_clip", kl=KLConfig(0.3, "k2"), entropy=0.2), batch(seed=1)
  compiled, norms = jax.jit(objective(terms_of(cfg, 1))), NORMS(experience, R_MAX, 1)
  changes = [{}, *({name: 0.05} for name in ("kl.coef", "entropy", "loss.clip_low", "loss.clip_high"))]
  losses = {
    float(compiled(scores, experience, hyperparams_of(cfg, **change), norms)[0]) for change in changes
  }
  assert len(losses) == len(changes)
  assert compiled._cache_size() == 1


def test_terms_add_and_are_told_by_name() -> None:
  cfg, (scores, experience) = config("ppo_clip", kl=KL, entropy=0.1), batch()
  loss, _, stats = evaluate(cfg, scores, experience)
  shares = [value for name, value in resolve_stats(stats).items() if name.startswith("loss/")]
  assert len(shares) == 3
  assert sum(shares) == pytest.approx(loss, rel=1e-5)
  extra = Term("extra", frozenset(), lambda scores, experience, strengths, norms: (jnp.float32(2.0), {}))
  more, _, stats = evaluate(cfg, scores, experience, terms=(*terms_of(cfg, 1), extra))
  assert more == pytest.approx(loss + 2.0, rel=1e-6)
  assert resolve_stats(stats)["loss/extra"] == 2.0


def test_the_sequence_ratio_is_not_summed_over_tokens() -> None:
  # On-policy, -A times the sequence's ratio has the gradient -A by each token; a token mean would give -A * length.
  for aggregation in ("token_mean", "dr_grpo"):
    with pytest.raises(ConfigError, match="rl.loss.aggregation"):
      run_config(config("rloo", aggregation))


def test_every_kind_of_the_config_exists() -> None:
  fields = {field.name: field.type for field in dataclasses.fields(LossConfig)}
  assert set(typing.get_args(fields["kind"])) == set(POLICY_LOSSES)
  assert set(typing.get_args(fields["aggregation"])) == set(AGGREGATIONS)
