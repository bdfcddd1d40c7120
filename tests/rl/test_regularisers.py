"""Regularisers below the objective: token choices, terms and controllers by hand; nothing where they have no strength.

Whole training steps with them: test_regularise_update. KL estimators: test_kl. Lengths and the sampler: test_shaping.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CovConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
  active_terms,
)
from o1jax.rl.experience import credit_and_experience
from o1jax.rl.learner import hyperparams, masked_experience, rl_learner
from o1jax.rl.losses import AGGREGATIONS, global_norms, objective, rl_terms
from o1jax.rl.regularisers import covariance, follow_entropy, follow_kl, rl_controllers, token_mask
from o1jax.types import Experience, Hyperparams, Rollout, TokenScores, resolve_stats

MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
KEY = jax.random.key(3)
LENGTHS = np.array([4, 1, 3, 2])
ACTION = (np.arange(8) >= 2) & (np.arange(8) < 2 + LENGTHS[:, None])
REWARD = np.float32([[1.0, 0.25], [0.0, 0.75]])
CLIPS = {"clip_low": 0.2, "clip_high": 0.3}


def config(kind="ppo_clip", aggregation="token_mean", **changes) -> RLConfig:
  loss = LossConfig(kind, aggregation, **(CLIPS if kind == "ppo_clip" else {}))
  epochs = 1 if kind == "reinforce" else 2  # without a ratio there is one step a rollout
  fields = dict(steps=10, prompts=2, samples=2, max_tokens=4, epochs=epochs, loss=loss)
  return RLConfig(**{**fields, "advantage": AdvantageConfig("dr_grpo"), **changes})


def run_of(cfg: RLConfig) -> TrainConfig:
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=cfg)
  run.validate()
  return run


def hyperparams_of(cfg: RLConfig, step: int = 1, **changes: float) -> Hyperparams:
  run = run_of(cfg)
  told = hyperparams(run, rl_learner(run), step)
  return told | {name: jnp.float32(value) for name, value in changes.items()}


def numbers(seed: int = 0) -> tuple[Rollout, TokenScores, np.ndarray]:
  """A rollout of four completions, the learner's scores of it and the reference's log-probs."""
  rng = np.random.default_rng(seed)
  draw = lambda scale: np.where(ACTION, rng.normal(0, scale, ACTION.shape), 0.0).astype(np.float32)
  sampler = -np.abs(draw(1.0))
  scores = TokenScores(sampler + draw(0.3), *(np.abs(draw(1.0)) for _ in range(3)))
  valid = ACTION | (np.arange(8) < 2)
  rollout = Rollout(np.zeros(ACTION.shape, np.int32), valid, ACTION, sampler, np.ones(4, bool), 2)
  return rollout, scores, sampler + draw(0.5)


def gradient(cfg: RLConfig, keep=frozenset(), key=KEY, **changes: float):
  """(d loss / d scores, metrics) eagerly, by way of credit, experience, tokens held back and the objective."""
  run = run_of(cfg)
  learner, strengths = rl_learner(run, active_terms([cfg]) | keep), hyperparams_of(cfg, **changes)
  rollout, scores, logp_ref = numbers()
  given = logp_ref if any(term.name == "kl" for term in learner.terms) else None
  with jax.disable_jit():
    experience, told = credit_and_experience(
      rollout, REWARD, None, rollout.logp_sampler, given, strengths["kl.coef"], cfg=cfg
    )
  experience = masked_experience(experience, key, learner)
  norms = global_norms(experience, 4, 1)
  grads, stats = jax.grad(objective(learner.terms), has_aux=True)(scores, experience, strengths, norms)
  return grads, resolve_stats({**told, **stats})


# Covariance: by hand


def covariance_case(advantage, logp) -> Experience:
  """One row of these action tokens behind a prompt of two."""
  count = len(advantage)
  row = lambda values: np.pad(np.float32([values]), [(0, 0), (2, 6 - count)], constant_values=7.0)
  action = (np.arange(8) >= 2) & (np.arange(8) < 2 + count)
  ones, action = np.ones((1, 8), np.int32), action[None]
  return Experience(
    ones, ones, ones, action, row(logp), row(logp), row(advantage), np.float32(action), row(logp)
  )


ONE_ROW = covariance_case([1.0, -1.0, 3.0, 1.0], [-1.0, -2.0, -0.5, -4.5])  # means 1 and -2


def test_covariance_by_hand() -> None:
  np.testing.assert_allclose(covariance(ONE_ROW)[0], [0, 0, 0, 0, 3.0, 0, 0, 0], atol=1e-6)
  mixed = covariance_case([2.0, 0.0], [-1.0, -2.0])
  np.testing.assert_allclose(covariance(mixed)[0, 2:4], [0.5, 0.5], atol=1e-6)


def picked(cfg: CovConfig, experience=ONE_ROW, key=KEY) -> list[int]:
  chosen = token_mask(cfg)(experience, key)
  assert not np.any(np.asarray(chosen) & ~experience.is_action)
  return np.flatnonzero(np.asarray(chosen)[0]).tolist()


def test_kl_cov_picks_the_highest_covariances() -> None:
  assert picked(CovConfig("kl_cov", fraction=1e-3, coef=1.0)) == [4]  # at least one
  assert picked(CovConfig("kl_cov", fraction=1.0, coef=1.0)) == [2, 3, 4, 5]
  six = covariance_case([1.0, -1.0, 2.0, -2.0, 0.0, 0.0], [-1.0, -3.0, -1.5, -2.5, -2.0, -2.0])
  np.testing.assert_allclose(covariance(six)[0, 2:], [1, 1, 1, 1, 0, 0], atol=1e-6)
  for fraction, expected in (
    (0.5, [2, 3, 4]),
    (0.6, [2, 3, 4, 5]),
  ):  # of equals the first come first; 3.6 tokens are 4
    assert picked(CovConfig("kl_cov", fraction=fraction, coef=1.0), six) == expected


def test_clip_cov_draws_among_those_in_the_window() -> None:
  value = np.float32(
    [0.5, 1.5, 2.0, 3.0, 4.0, 6.0]
  )  # with lo - mean 1 or -1 the covariance is +- the advantage
  experience = covariance_case([*value[:3], *-value[3:]], [-1.0] * 3 + [-3.0] * 3)
  found = np.asarray(covariance(experience))[0, 2:]
  low, high = np.sort(found)[[1, 4]]
  inside = (np.flatnonzero((found > low) & (found < high)) + 2).tolist()
  assert len(inside) == 2
  cfg = lambda fraction: CovConfig("clip_cov", fraction=fraction, low=float(low), high=float(high))
  assert picked(cfg(1.0), experience) == inside  # never more than there are
  ones = {tuple(picked(cfg(1e-3), experience, jax.random.key(seed))) for seed in range(12)}
  assert ones == {(token,) for token in inside}  # one at a time, and either comes
  assert picked(CovConfig("clip_cov", fraction=1.0, low=90.0, high=99.0), experience) == []


def test_the_draw_is_uniform_and_padding_changes_nothing() -> None:
  rng = np.random.default_rng(0)
  experience = covariance_case(rng.normal(0, 1, 6), rng.normal(-1, 1, 6))
  cfg = CovConfig("clip_cov", fraction=0.5, low=-99.0, high=99.0)
  choose = jax.jit(token_mask(cfg))
  counts = sum(np.asarray(choose(experience, jax.random.key(s)), int) for s in range(300))[0, 2:]
  assert counts.sum() == 900 and np.all(np.abs(counts - 150) < 5 * (300 / 4) ** 0.5)
  wide = jax.tree.map(lambda a: np.pad(a, [(0, 1), (3, 2)]), experience)
  np.testing.assert_array_equal(token_mask(cfg)(wide, KEY)[:1, 3:-2], choose(experience, KEY))


# The terms' gradients by hand

CLIP_COV = CovConfig("clip_cov", fraction=0.3, low=-99.0, high=99.0)
KL_COV = CovConfig("kl_cov", fraction=0.3, coef=0.5)


@pytest.mark.parametrize("kind", ["reinforce", "ppo_clip"])
def test_clip_cov_takes_the_gradient_of_its_tokens(kind) -> None:
  plain, _ = gradient(config(kind))
  held, told = gradient(config(kind, cov=CLIP_COV))
  gone = (np.asarray(held.logp) == 0) & (np.asarray(plain.logp) != 0)
  assert 1 <= gone.sum() <= 3
  np.testing.assert_array_equal(held.logp, np.where(gone, 0.0, plain.logp))
  assert told["cov/held_back_mean"] == pytest.approx(0.3)
  other, _ = gradient(config(kind, cov=CLIP_COV), key=jax.random.key(8))
  assert np.any(np.asarray(other.logp) != held.logp)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_kl_cov_adds_the_sign_of_the_gap(aggregation) -> None:
  cfg = config("ppo_clip", aggregation, cov=KL_COV)
  rollout, scores, _ = numbers()
  plain, _ = gradient(config("ppo_clip", aggregation))
  got, told = gradient(cfg)
  advantage = np.where(ACTION, (REWARD - REWARD.mean(1, keepdims=True)).reshape(-1, 1), 0.0)
  centred = lambda value: value - value[ACTION].mean()
  value = np.where(ACTION, centred(advantage) * centred(rollout.logp_sampler), -np.inf)
  chosen = value >= np.sort(value[ACTION])[-3]
  norm = {"token_mean": 10, "seq_mean_token_mean": 4 * LENGTHS[:, None], "dr_grpo": 16}[aggregation]
  gap = scores.logp - rollout.logp_sampler
  expected = np.where(chosen, 0.5 * np.sign(gap) / norm, 0.0)
  np.testing.assert_allclose(np.asarray(got.logp) - plain.logp, expected, atol=1e-7)
  assert told["loss/cov"] == pytest.approx(
    float(np.where(chosen, 0.5 * np.abs(gap) / norm, 0.0).sum()), rel=1e-5
  )
  assert told["cov/held_back_mean"] == pytest.approx(0.3)


@pytest.mark.parametrize(
  ("dtype", "gap", "moves"),
  [("float32", 0.0, 0), ("float32", 1e-5, 0), ("float32", 1e-3, 3), ("bfloat16", 0.04, 0), ("bfloat16", 0.1, 3)],
)  # fmt: skip
def test_kl_cov_has_no_gradient_within_rounding(dtype, gap, moves) -> None:
  rollout, scores, _ = numbers()
  cfg = config(cov=KL_COV)
  old = np.where(ACTION, scores.logp + gap * np.where(np.arange(8) % 2, 1, -1), 0.0).astype(np.float32)
  with jax.disable_jit():
    experience, _ = credit_and_experience(rollout, REWARD, None, old, None, 0.0, cfg=cfg)
  experience = experience.replace(cov_mask=token_mask(KL_COV)(experience, KEY))
  (term,) = (term for term in rl_terms(cfg, dtype=dtype) if term.name == "cov")
  norms = global_norms(experience, 4, 1)
  grads, _ = jax.grad(term.apply, has_aux=True)(scores, experience, hyperparams_of(cfg), norms)
  assert np.count_nonzero(grads.logp) == moves


def test_terms_that_hold_tokens_back_ask_for_them() -> None:
  scores = jax.tree.map(lambda a: a[:1], numbers()[1])
  for cov in (CLIP_COV, KL_COV):
    cfg = config(cov=cov)
    with pytest.raises(ValueError, match="cov_mask"):
      objective(rl_terms(cfg))(scores, ONE_ROW, hyperparams_of(cfg), global_norms(ONE_ROW, 4, 1))


# The coefficient of the KL over a stage


def test_a_scheduled_coefficient_by_hand() -> None:
  at = lambda kl, step: float(hyperparams_of(config(kl=kl), step)["kl.coef"])
  linear = KLConfig(0.5, schedule="linear", final_fraction=0.2)  # over ten steps, by 0.04 a step
  np.testing.assert_allclose([at(linear, step) for step in (1, 2, 6, 11)], [0.5, 0.46, 0.3, 0.1], rtol=1e-6)
  cosine = KLConfig(0.5, schedule="cosine")
  np.testing.assert_allclose([at(cosine, step) for step in (1, 6, 11)], [0.5, 0.25, 0.0], atol=1e-7)
  assert at(KLConfig(0.5), 7) == 0.5


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "reverse", "forward"])
def test_a_scheduled_coefficient_scales_the_gradient(estimator) -> None:
  kl = KLConfig(0.5, estimator, schedule="linear", times_ratio=estimator == "k1")
  late = float(hyperparams_of(config(kl=kl), 6)["kl.coef"])
  assert late == pytest.approx(0.25)
  got, told = gradient(config(kl=kl), **{"kl.coef": late})
  fixed, _ = gradient(config(kl=KLConfig(0.25, estimator, times_ratio=estimator == "k1")))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, fixed)
  assert told["kl/coef"] == pytest.approx(0.25)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_kl_in_the_reward_has_the_policy_gradient_of_its_sum(estimator) -> None:
  cfg = config("reinforce", kl=KLConfig(0.5, estimator, "reward"))
  rollout, _, logp_ref = numbers()
  gap = rollout.logp_sampler - logp_ref
  cost = {"k1": gap, "k2": gap**2 / 2, "k3": np.exp(-gap) - 1 + gap}[estimator].sum(1)
  paid = REWARD - 0.5 * cost.reshape(2, 2)
  advantage = (paid - paid.mean(1, keepdims=True)).reshape(-1, 1)
  got, told = gradient(cfg)
  np.testing.assert_allclose(got.logp, np.where(ACTION, -advantage / 10, 0.0), rtol=2e-5)
  assert told["loss/kl"] == 0.0 and told["kl/coef"] == 0.5


# Controllers


@pytest.mark.parametrize(
  ("measured", "expected"),
  [(0.1, 0.5), (0.11, 0.5 * 1.025), (0.095, 0.5 * 0.9875), (9.0, 0.5 * 1.05), (0.0, 0.5 * 0.95)],
)
def test_the_kl_controller_by_hand(measured, expected) -> None:
  # Target 0.1, 8 of a horizon of 32 completions: an error of 10% moves the coefficient by 2.5%, of more than 20% by 5%.
  got = follow_kl(np.float32(0.5), np.float32(measured), 8, target=0.1, horizon=32)
  assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
  ("coef", "measured", "expected"), [(0.5, 0.9, 0.75), (0.5, 1.0, 0.25), (0.5, 2.0, 0.25), (0.1, 2.0, 0.0)]
)
def test_the_entropy_controller_by_hand(coef, measured, expected) -> None:
  got = follow_entropy(np.float32(coef), np.float32(measured), 8, target=1.0, rate=0.25)
  assert float(got) == pytest.approx(expected)


def test_controllers_exist_where_a_target_does() -> None:
  assert rl_controllers(config(kl=KLConfig(0.1), entropy=0.2)) == ()
  adaptive = config(
    kl=KLConfig(0.5, "reverse", target=0.1, horizon=32), entropy=0.2, entropy_target=1.0, entropy_rate=0.1
  )
  found = {c.name: (c.start, c.measure) for c in rl_controllers(adaptive)}
  assert found == {"kl.coef": (0.5, "kl/reverse"), "entropy": (0.2, "entropy")}


def test_an_adaptive_bonus_acts_from_a_coefficient_of_zero() -> None:
  cfg = config(entropy_target=1.0, entropy_rate=0.1)
  grads, told = gradient(cfg, entropy=0.1)
  np.testing.assert_allclose(np.asarray(grads.entropy)[ACTION], -0.1 / 10, rtol=1e-6)
  assert told["entropy/coef"] == pytest.approx(0.1)


# No strength: the term is there, and the gradient is bit for bit the one without it

PAID = {f"{e} in the reward": KLConfig(0.3, e, placement="reward") for e in ("k1", "k2", "k3")}
KLS = {e: KLConfig(0.3, e) for e in ("k2", "k3", "reverse", "forward")}
KLS |= {f"{e} times the ratio": KLConfig(0.3, e, times_ratio=True) for e in ("k1", "k2", "k3")}
KLS |= {
  "scheduled": KLConfig(0.3, "k3", schedule="cosine"),
  "adaptive": KLConfig(0.3, "k3", target=0.1, horizon=9),
  "EMA": KLConfig(0.3, "k3", reference="ema", ema=0.5),
  "reset": KLConfig(0.3, "k3", reference="reset", reset_every=2),
  "reset, moments too": KLConfig(0.3, "k3", reference="reset", reset_every=2, reset_optimizer=True),
  **PAID,
}
WEAK = {f"KL, {name}": config(kl=kl) for name, kl in KLS.items()}
WEAK |= {
  "entropy": config(entropy=0.1),
  "adaptive entropy": config(entropy=0.1, entropy_target=1.0, entropy_rate=0.1),
  "kl_cov": config(cov=KL_COV),
  "clip_cov": config(cov=CovConfig("clip_cov", fraction=0.3, low=90.0, high=99.0)),  # a window without tokens
  "L2": config(l2_init=0.1),
}
NOTHING = {"kl.coef": 0.0, "entropy": 0.0, "cov.coef": 0.0, "l2_init": 0.0}


@pytest.mark.parametrize("name", WEAK)
def test_without_strength_the_gradient_is_bitwise_that_without_the_term(name) -> None:
  plain, _ = gradient(config())
  weak, _ = gradient(WEAK[name], **NOTHING)
  np.testing.assert_array_equal(weak.logp, plain.logp)
  for other in (weak.entropy, weak.kl_reverse, weak.kl_forward):
    np.testing.assert_array_equal(other, 0.0)
  if name not in ("clip_cov", "L2"):  # one has a fraction, no strength; the other reads no score
    strong, _ = gradient(WEAK[name])
    assert any(np.any(np.asarray(s) != w) for s, w in zip(jax.tree.leaves(strong), jax.tree.leaves(weak)))


# Terms that stay


KEPT = {
  "kl": config(kl=KLConfig(0.3, "k3")),
  "kl ": config(kl=KLConfig(0.3, "reverse")),
  "kl  ": config(kl=KLConfig(0.3, "k1", placement="reward")),
  "entropy": config(entropy=0.1),
  "cov": config(cov=KL_COV),
  "l2_init": config(l2_init=0.1),
}
OFF = {
  "kl": lambda cfg: dataclasses.replace(cfg, kl=dataclasses.replace(cfg.kl, coef=0.0)),
  "entropy": lambda cfg: dataclasses.replace(cfg, entropy=0.0),
  "cov": lambda cfg: dataclasses.replace(cfg, cov=dataclasses.replace(cfg.cov, coef=0.0)),
  "l2_init": lambda cfg: dataclasses.replace(cfg, l2_init=0.0),
}


def existing(cfg: RLConfig, keep: frozenset[str] = frozenset()) -> set[str]:
  """Names of the terms and penalties of a learner."""
  learner = rl_learner(run_of(cfg), active_terms([cfg]) | keep)
  return {part.name for part in (*learner.terms, *learner.penalties)}


@pytest.mark.parametrize("name", KEPT)
def test_a_term_that_is_kept_does_what_its_traced_strength_says(name) -> None:
  cfg, term = KEPT[name], name.strip()
  weak, keep = OFF[term](cfg), frozenset({term})
  assert existing(weak, keep) == existing(cfg)
  assert term == "entropy" or existing(cfg) - existing(weak) == {term}  # the entropy is measured in any case
  field = {"kl": "kl.coef", "cov": "cov.coef"}.get(term, term)
  strength = float(hyperparams_of(cfg)[field])
  got, expected = gradient(weak, keep, **{field: strength})[0], gradient(cfg)[0]
  jax.tree.map(np.testing.assert_array_equal, got, expected)
