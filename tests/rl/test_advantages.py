"""Advantages against numbers a reader can check by hand, and what must not change them."""

import dataclasses
import typing

import jax
import numpy as np
import pytest

from o1jax.config import AdvantageConfig, CriticConfig, RLConfig
from o1jax.rl.advantages import ADVANTAGES, reward_stats
from o1jax.types import Credit, resolve_stats

COMPILED = {kind: jax.jit(estimator.fn, static_argnums=1) for kind, estimator in ADVANTAGES.items()}
STATS = jax.jit(reward_stats)
# Kinds that compare the completions of one prompt with each other.
GROUPED = ("grpo", "dr_grpo", "rloo", "opo", "maxrl", "pass@k")


def credit_of(outcome, lengths=None, *, prompt=1, include=None, token=None, greedy=None) -> Credit:
  """A Credit whose rows are `prompt` columns, then the completion's actions, then padding.

  Groups smaller than 2 x 4 are filled up with completions that are left out: one shape, little to compile.
  """
  outcome = np.asarray(outcome, np.float32)
  fill = [(0, max(0, 2 - outcome.shape[0])), (0, max(0, 4 - outcome.shape[1]))]
  lengths = np.full(outcome.shape, 2) if lengths is None else np.asarray(lengths)
  include = np.ones(outcome.shape, bool) if include is None else np.asarray(include)
  if token is not None:
    rows = np.asarray(token, np.float32).reshape(*outcome.shape, -1)
    token = np.pad(rows, [*fill, (prompt, 7 - prompt - rows.shape[-1])]).reshape(-1, 7)
  column, lengths = np.arange(7) - prompt, np.pad(lengths, fill, constant_values=1)
  greedy = np.zeros(len(outcome)) if greedy is None else np.asarray(greedy)
  return Credit(
    outcome=np.pad(outcome, fill, constant_values=7.0),
    length=lengths.astype(np.int32),
    include=np.pad(include, fill),
    is_action=(column >= 0) & (column < lengths.reshape(-1, 1)),
    token=token,
    greedy=np.pad(greedy.astype(np.float32), fill[:1]),
    value=np.full((lengths.size, 7), 0.25, np.float32),
  )


def config(kind: str, **options) -> RLConfig:
  """A critic, where there is one, tells no token of a completion from another: test_value has those that do."""
  critic = CriticConfig("head", lam=1.0) if kind == "gae" else CriticConfig()
  return RLConfig(advantage=AdvantageConfig(kind=kind, **options), critic=critic)


def by_token(credit: Credit, kind: str, **options) -> np.ndarray:
  """f32[B, L] advantages, after a check that they stand on actions alone."""
  advantage = np.asarray(COMPILED[kind](credit, config(kind, **options)))
  assert advantage.shape == credit.is_action.shape
  np.testing.assert_array_equal(advantage[~np.asarray(credit.include).reshape(-1)], 0.0)
  assert advantage.dtype == np.float32
  np.testing.assert_array_equal(advantage[~np.asarray(credit.is_action)], 0.0)
  return advantage


def by_completion(credit: Credit, kind: str, **options) -> np.ndarray:
  """f32[P, G] with NaN where left out, after a check that a completion has one advantage on all its actions."""
  advantage, action = by_token(credit, kind, **options), np.asarray(credit.is_action)
  first = advantage[np.arange(len(action)), action.argmax(1)]
  np.testing.assert_array_equal(advantage, np.where(action, first[:, None], 0.0))
  return np.where(credit.include, first.reshape(credit.outcome.shape), np.nan)


def assert_same(got: np.ndarray, expected, rtol=1e-6, atol=0.0) -> None:
  """Numbers of the completions that were given, in their order."""
  np.testing.assert_allclose(got[np.isfinite(got)], np.ravel(expected), rtol=rtol, atol=atol)


# Rewards 0 0 0 4: mean 1, squared deviations 1 + 1 + 1 + 9 = 12, deviation 2 with ddof 1 and sqrt(3) with ddof 0.
SPREAD = [[0.0, 0.0, 0.0, 4.0]]
BY_HAND = {
  "grpo, ddof 1": ("grpo", {}, SPREAD, [[-1 / 2.0001] * 3 + [3 / 2.0001]]),
  "grpo, ddof 0": ("grpo", {"ddof": 0}, SPREAD, [[-1 / (3**0.5 + 1e-4)] * 3 + [3 / (3**0.5 + 1e-4)]]),
  "grpo, eps 1": ("grpo", {"eps": 1.0}, SPREAD, [[-1 / 3] * 3 + [1.0]]),
  "dr_grpo": ("dr_grpo", {}, SPREAD, [[-1.0, -1.0, -1.0, 3.0]]),
  "rloo: 0 - 4/3, 4 - 0": ("rloo", {}, SPREAD, [[-4 / 3, -4 / 3, -4 / 3, 4.0]]),
  "reinforce": ("reinforce", {}, SPREAD, SPREAD),
  "reinforce, a level group": ("reinforce", {}, [[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]),
  "maxrl": ("maxrl", {}, SPREAD, [[-1.0, -1.0, -1.0, 3.0]]),
  "maxrl, mean 1/4": ("maxrl", {}, [[1.0, 0.0, 0.0, 0.0]], [[3.0, -1.0, -1.0, -1.0]]),
  "maxrl, mean 0": ("maxrl", {}, [[-1.0, 1.0]], [[0.0, 0.0]]),
  "maxrl, mean below 0": ("maxrl", {}, [[-3.0, 1.0]], [[0.0, 0.0]]),
  "pass@k": ("pass@k", {}, [[0.25, 1.0, 0.5]], [[0.0, 0.5, 0.0]]),
  "pass@k, below 0": ("pass@k", {}, [[-3.0, -1.0, -2.0]], [[0.0, 1.0, 0.0]]),
  "pass@k, a tie": ("pass@k", {}, [[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]),
  "two groups": ("dr_grpo", {}, [[0.0, 2.0], [10.0, 4.0]], [[-1.0, 1.0], [3.0, -3.0]]),
}


@pytest.mark.parametrize(("kind", "options", "reward", "expected"), BY_HAND.values(), ids=BY_HAND.keys())
def test_numbers_by_hand(kind, options, reward, expected) -> None:
  assert_same(by_completion(credit_of(reward), kind, **options), expected)


def test_opo_weights_its_baseline_by_length() -> None:
  # (1 * 1 + 3 * 0) / (1 + 3) = 0.25
  assert_same(by_completion(credit_of([[1.0, 0.0]], [[1, 3]]), "opo"), [[0.75, -0.25]])
  # with equal lengths it is the plain mean
  credit = credit_of(SPREAD)
  np.testing.assert_allclose(by_completion(credit, "opo"), by_completion(credit, "dr_grpo"))


def test_remax_subtracts_the_greedy_reward() -> None:
  credit = credit_of([[1.0, 0.0], [0.5, 0.5]], greedy=[1.0, 0.0])
  assert_same(by_completion(credit, "remax"), [[0.0, -1.0], [0.5, 0.5]])
  with pytest.raises(ValueError, match="greedy"):
    by_completion(credit.replace(greedy=None), "remax")


def test_reinforce_plus_plus_whitens_over_tokens() -> None:
  # One token of return 1 and three of 0: mean 1/4, variance 3/16. Over completions the mean would be 1/2.
  credit = credit_of([[1.0, 0.0]], [[1, 3]])
  expected = [[0.75 / (3 / 16) ** 0.5, -0.25 / (3 / 16) ** 0.5]]
  assert_same(by_completion(credit, "reinforce++"), expected)


def test_reinforce_plus_plus_takes_the_group_mean_first() -> None:
  # Groups (3, 1) and (10, 10) leave 1, -1, 0, 0 over two tokens each: mean 0, variance 1/2.
  credit = credit_of([[3.0, 1.0], [10.0, 10.0]])
  got = by_completion(credit, "reinforce++", group_baseline=True)
  assert_same(got, [[2**0.5, -(2**0.5)], [0.0, 0.0]])
  # Without it the whole batch's mean, 6, is all that is subtracted.
  assert_same(by_completion(credit, "reinforce++"), (np.array([[3.0, 1.0], [10.0, 10.0]]) - 6) / 16.5**0.5)


def test_reinforce_plus_plus_returns_start_at_their_token() -> None:
  # Outcomes 1 and 0 are whitened to 1 and -1. Token rewards (-1, -2) and (4, 1) are returns of -3, -2 and 5, 1: mean 1/4.
  credit = credit_of([[1.0, 0.0]], token=[[-1.0, -2.0], [4.0, 1.0]])
  expected = np.array([[1 - 3.25, 1 - 2.25], [-1 + 4.75, -1 + 0.75]])
  np.testing.assert_allclose(by_token(credit, "reinforce++")[:2, 1:3], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dr_grpo", "rloo", "reinforce", "opo", "remax"])
def test_token_rewards_add_to_the_outcome(kind) -> None:
  # A token reward beyond the completion's last action is none of its own.
  lengths = [[2, 1], [1, 2]]
  token = [[-0.5, -0.25], [-1.0, 99.0], [0.5, 99.0], [0.25, 0.25]]
  paid = credit_of([[1.0, 3.0], [2.0, 2.0]], lengths, token=token, greedy=[1.0, 2.0])
  nothing = np.zeros((4, 2))
  summed = credit_of([[0.25, 2.0], [2.5, 2.5]], lengths, token=nothing, greedy=[1.0, 2.0])
  np.testing.assert_array_equal(by_token(paid, kind), by_token(summed, kind))


PAID_BY_HAND = {  # rewards 0 0 0 4 and token sums 1 1 3 3, centred -1 -1 1 1
  "grpo": ("grpo", SPREAD, [[-1 / 2.0001 - 1, -1 / 2.0001 - 1, -1 / 2.0001 + 1, 3 / 2.0001 + 1]]),
  "maxrl": ("maxrl", SPREAD, [[-2.0, -2.0, 0.0, 4.0]]),
  "maxrl, nothing solved": ("maxrl", [[0.0] * 4], [[0.0] * 4]),
  "pass@k": ("pass@k", SPREAD, [[-1.0, -1.0, 1.0, 5.0]]),
  "pass@k, a tie": ("pass@k", [[4.0] * 4], [[-1.0, -1.0, 1.0, 1.0]]),
}


@pytest.mark.parametrize(("kind", "reward", "expected"), PAID_BY_HAND.values(), ids=PAID_BY_HAND.keys())
def test_token_rewards_are_divided_by_no_deviation_of_theirs(kind, reward, expected) -> None:
  token = [[0.5, 0.5], [1.0, 0.0], [1.5, 1.5], [2.0, 1.0]]
  assert_same(by_completion(credit_of(reward, token=token), kind), expected, atol=1e-6)


LEVEL = {
  **{kind: (kind, {}) for kind in (*GROUPED, "reinforce++", "gae")},
  "baseline": ("reinforce++", {"group_baseline": True}),
}


@pytest.mark.parametrize(("kind", "options"), LEVEL.values(), ids=LEVEL.keys())
def test_a_kl_acts_by_its_coefficient_where_outcomes_are_level(kind, options) -> None:
  noise = np.random.default_rng(0).normal(0, 0.2, (8, 8, 2))
  credit = lambda coef: credit_of(np.ones((8, 8)), token=coef * noise).replace(
    value=np.zeros((64, 7), np.float32)
  )
  sizes = [by_token(credit(coef), kind, **options).std() for coef in (1e-1, 1e-2, 1e-3, 1e-5)]
  assert sizes[0] / sizes[1] == pytest.approx(10, rel=0.01) == sizes[1] / sizes[2]
  assert sizes[1] / sizes[3] == pytest.approx(1000, rel=0.01) and 1e-7 < sizes[3] < 1e-5
  np.testing.assert_array_equal(by_token(credit(0.0), kind, **options), 0.0)


def test_maxrl_divides_by_what_the_verifier_paid() -> None:
  # Solved 1/4 of the time; lengths cost so much that the mean of what is learned from is 0.0025.
  verified, cost = np.float32([[1.0, 0.0, 0.0, 0.0]]), np.float32([[-0.09, -0.3, -0.3, -0.3]])
  credit = credit_of(verified + cost)
  fill = np.pad(verified, [(0, 1), (0, 0)])
  assert_same(
    by_completion(credit.replace(verified=fill), "maxrl"), [[0.9075 / 0.25, *[-0.3025 / 0.25] * 3]], rtol=1e-5
  )
  unsolved = credit_of(1 + cost).replace(verified=0 * fill)
  np.testing.assert_array_equal(by_token(unsolved, "maxrl"), 0.0)


@pytest.mark.parametrize("kind", ["grpo", "reinforce++", "gae"])
def test_the_floor_bounds_what_rewards_that_are_never_equal_are_divided_by(kind) -> None:
  spread = np.float32([[-1.0, -0.5, 0.5, 1.0], [1.0, 0.5, -0.5, -1.0]])
  sizes = {
    (scale, least): np.abs(by_token(credit_of(0.995 + scale * spread), kind, min_std=least)).max()
    for scale in (0.002, 0.2)
    for least in (0.0, 0.05)
  }
  assert sizes[0.002, 0.0] > 0.9 and sizes[0.002, 0.05] == pytest.approx(0.002 / 0.05, rel=0.01)
  assert sizes[0.2, 0.0] == sizes[0.2, 0.05]


@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize("value", [0.9, 1.0, 0.1, -7.3])
def test_level_groups_get_exactly_nothing(kind, value) -> None:
  # In f32 the mean of 64 times 0.9 is not 0.9, and the rest divided by a tiny deviation is far from 0.
  include = np.arange(64) < np.array([[3], [7], [10], [64]])
  options = {"ddof": 0, "eps": 1e-8} if kind == "grpo" else {}
  credit = credit_of(np.full((4, 64), value), include=include)
  np.testing.assert_array_equal(by_token(credit, kind, **options), 0.0)
  assert resolve_stats(STATS(credit))["frac_reward_zero_std"] == 1.0


@pytest.mark.parametrize("group_baseline", [False, True])
def test_level_batch_is_level_for_reinforce_plus_plus(group_baseline) -> None:
  include = np.arange(64) < np.array([[3], [7], [10], [64]])
  credit = credit_of(np.full((4, 64), 0.9), include=include)
  np.testing.assert_array_equal(by_token(credit, "reinforce++", group_baseline=group_baseline), 0.0)


@pytest.mark.parametrize("left_out", [99.0, float("nan")])
@pytest.mark.parametrize("kind", ADVANTAGES)
def test_left_out_completions_count_for_nothing(kind, left_out) -> None:
  lengths = [[2, 1, 3], [1, 3, 2]]
  whole = credit_of(
    [[1.0, left_out, 0.0], [left_out, 0.25, 0.75]], lengths, include=[[True, False, True], [False, True, True]],
    greedy=[0.5, 0.25],
  )  # fmt: skip
  alone = credit_of([[1.0, 0.0], [0.25, 0.75]], [[2, 3], [3, 2]], greedy=[0.5, 0.25])
  got, expected = by_completion(whole, kind), by_completion(alone, kind)
  assert_same(got, expected[np.isfinite(expected)])
  stats = (resolve_stats(STATS(whole)), resolve_stats(STATS(alone)))
  assert stats[0] == pytest.approx(stats[1], rel=1e-6)


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_an_empty_group_is_silent(kind) -> None:
  include = [[True] * 4, [False] * 4]
  credit = credit_of([[1.0, 0.0, 0.0, 0.5], [1.0, 0.0, 0.5, 0.5]], include=include, greedy=[0.25, 0.25])
  got = by_token(credit, kind)
  assert np.isfinite(got).all() and got[:4].any()
  np.testing.assert_array_equal(got[4:], 0.0)
  assert resolve_stats(STATS(credit))["frac_reward_zero_std"] == 0.0


REWARD, LENGTHS = [[1.0, 0.0, 0.5], [0.25, 1.0, 0.0]], [[3, 1, 2], [1, 2, 3]]
TOKEN = np.linspace(-1, 1, 18).reshape(6, 3)


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_longer_prompts_change_nothing(kind) -> None:
  make = lambda prompt: credit_of(REWARD, LENGTHS, prompt=prompt, token=TOKEN, greedy=[0.25, 0.75])
  bare, behind = (by_token(make(prompt), kind) for prompt in (0, 4))
  np.testing.assert_allclose(np.roll(bare, 4, axis=1), behind, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["grpo", "reinforce++"])
def test_padding_changes_nothing(kind) -> None:
  tight = credit_of(REWARD, LENGTHS, token=TOKEN)
  widen = lambda a: np.pad(a, [(0, 0), (0, 5)])
  wide = tight.replace(is_action=widen(tight.is_action), token=widen(tight.token))
  np.testing.assert_allclose(by_token(wide, kind), widen(by_token(tight, kind)), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_rewards_may_be_shifted(kind) -> None:
  reward = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
  plain, shifted = (by_completion(credit_of(reward + shift), kind) for shift in (0.0, 8.0))
  np.testing.assert_allclose(plain, shifted, rtol=1e-5)
  np.testing.assert_allclose(plain.sum(1), 0.0, atol=2e-6)


def test_reward_statistics() -> None:
  # 0 0 4 4 over all: mean 2, squared deviations 16, ddof 1. The level group is one of two.
  stats = resolve_stats(STATS(credit_of([[0.0, 0.0], [4.0, 4.0]])))
  assert stats == pytest.approx({"reward": 2.0, "reward_std": (16 / 3) ** 0.5, "frac_reward_zero_std": 1.0})
  stats = resolve_stats(STATS(credit_of([[0.0, 4.0], [2.0, 2.0]])))
  assert stats == pytest.approx({"reward": 2.0, "reward_std": (8 / 3) ** 0.5, "frac_reward_zero_std": 0.5})


def test_every_kind_of_the_config_exists() -> None:
  fields = {field.name: field.type for field in dataclasses.fields(AdvantageConfig)}
  assert set(typing.get_args(fields["kind"])) == set(ADVANTAGES)
