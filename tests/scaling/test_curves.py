"""Accuracy-against-tokens curves: what each one conditions on, against plain loops and a Simpson's
paradox."""

import numpy as np
import pytest

from o1jax.scaling import curves

NAMES = ("x", "y", "low", "high", "count")


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng(seed)


def samples(seed: int, n: int = 30, k: int = 7) -> tuple[np.ndarray, np.ndarray]:
  """(correct bool[n, k], length i[n, k]) with many equal lengths, and problems of different difficulty."""
  draw = rng(seed)
  return draw.random((n, k)) < draw.random((n, 1)), draw.integers(1, 15, (n, k))


def points(curve: curves.Curve) -> list[tuple]:
  """(x, y, count) of each point, after a check that its interval brackets its mean."""
  assert tuple(curve) == NAMES
  rows = list(zip(*(curve[name] for name in NAMES), strict=True))
  assert all(0 <= low <= y <= high <= 1 for _, y, low, high, _ in rows)
  return [(x, y, count) for x, y, _, _, count in rows]


@pytest.mark.parametrize("flip", [False, True])
def test_pooled_and_within_prompt_bins_slope_in_opposite_ways_in_simpsons_paradox(flip) -> None:
  # Twenty easy problems with short completions and twenty hard ones with long; within each, longer ones do
  # better.
  easy, rank = np.arange(40)[:, None] < 20, np.arange(8)
  chance = np.where(easy, 0.6, 0.1) + 0.3 * rank / 7
  correct = (chance > (np.arange(40)[:, None] % 20 + 0.5) / 20) ^ flip  # evenly spread thresholds: no noise
  length = np.where(easy, 10, 100) + rank
  slope = -1 if flip else 1
  pooled = curves.pooled_bins(correct, length, bins=2)["y"]
  within = curves.within_prompt_bins(correct, length, bins=4)["y"]
  assert pooled == pytest.approx([0.25, 0.75] if flip else [0.75, 0.25], abs=1e-12)
  assert (slope * np.diff(within) > 0.05).all() and len(within) == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_pooled_bins_split_all_samples_by_length(seed) -> None:
  correct, length = samples(seed)
  curve = points(curves.pooled_bins(correct, length, bins=5))
  pairs = sorted(zip(length.ravel().tolist(), correct.ravel().tolist()))
  assert sum(count for _, _, count in curve) == len(pairs)
  for x, y, count in curve:
    part, pairs = pairs[:count], pairs[count:]
    assert x == pytest.approx(np.mean([size for size, _ in part]))
    assert y == pytest.approx(np.mean([good for _, good in part]))
    assert not pairs or part[-1][0] < pairs[0][0]  # equal lengths stay together
  assert len(curve) == 5


@pytest.mark.parametrize(
  ("lengths", "bins", "expected"),
  [
    ([[5, 5], [5, 5]], 2, [(5.0, 4)]),
    ([[1, 1], [1, 9]], 4, [(1.0, 3), (9.0, 1)]),
    ([[3, 1], [2, 4]], 2, [(1.5, 2), (3.5, 2)]),
  ],
)
def test_pooled_bins_never_part_equal_lengths(lengths, bins, expected) -> None:
  correct = np.array([[True, False], [False, True]])
  curve = points(curves.pooled_bins(correct, np.array(lengths), bins=bins))
  assert [(x, count) for x, _, count in curve] == expected


@pytest.mark.parametrize(("k", "bins", "sizes"), [(7, 3, [3, 2, 2]), (4, 6, [1, 1, 1, 1]), (1, 2, [1])])
def test_within_prompt_bins_take_equal_ranks_of_every_problem(k, bins, sizes) -> None:
  correct, length = samples(2, k=k)
  curve = points(curves.within_prompt_bins(correct, length, bins=bins))
  ranked = [
    sorted(zip(sizes_, goods, strict=True), key=lambda p: p[0]) for sizes_, goods in zip(length, correct)
  ]
  start = 0
  for (x, y, count), size in zip(curve, sizes, strict=True):
    part = [pair for row in ranked for pair in row[start : start + size]]
    assert count == len(part) == 30 * size
    assert (x, y) == pytest.approx((np.mean([p[0] for p in part]), np.mean([p[1] for p in part])))
    start += size


def test_natural_stopping_is_one_point() -> None:
  correct, length = samples(3)
  assert points(curves.natural(correct, length)) == [(length.mean(), correct.mean(), correct.size)]


def test_forced_budgets_are_points_in_ascending_order() -> None:
  short, long = samples(4)[0], samples(5, k=2)[0]
  curve = points(curves.forced_budget({64: long, 8: short}))
  assert curve == [(8.0, short.mean(), short.size), (64.0, long.mean(), long.size)]


def affordable(goods: list[bool], sizes: list[int], budget: int) -> list[bool]:
  """Verdicts of the samples that are drawn, one after the other, before the budget runs out."""
  taken = []
  for good, size in zip(goods, sizes):
    budget -= size
    if budget < 0:
      break
    taken.append(good)
  return taken


def test_best_of_n_takes_samples_in_order_while_they_fit() -> None:
  correct, length = samples(6)
  budgets = [1, 6, 20, 200]
  curve = points(curves.best_of_n(correct, length, budgets))
  for budget, point in zip(budgets, curve, strict=True):
    sampled = [affordable(goods, sizes, budget) for goods, sizes in zip(correct.tolist(), length.tolist())]
    solved = np.mean([any(taken) for taken in sampled])
    assert point == (budget, pytest.approx(solved), sum(map(len, sampled)))
  assert curve[-1][1] == correct.any(1).mean()


@pytest.mark.parametrize("name", ["pooled_bins", "within_prompt_bins", "natural"])
def test_intervals_resample_whole_problems(name) -> None:
  # Every sample of a problem alike: 400 samples say no more than the 20 problems they belong to.
  correct = np.repeat(np.arange(20)[:, None] % 2 == 0, 20, axis=1)
  length = np.full((20, 20), 7)
  curve = getattr(curves, name)(correct, length)
  width = np.array(curve["high"]) - np.array(curve["low"])
  expected = 2 * 1.96 * 0.5 / np.sqrt(20)
  np.testing.assert_allclose(width, expected, atol=0.06)


@pytest.mark.parametrize("solved", [False, True])
def test_what_nobody_or_everybody_solves_has_an_interval(solved) -> None:
  # Wilson's bounds of 0 or 16 of 16 problems: 0.1936 from the end, for each point that all of them are in.
  correct, length = np.full((16, 4), solved), np.tile(np.arange(1, 5), (16, 1))
  every = [
    curves.pooled_bins(correct, length, bins=2), curves.within_prompt_bins(correct, length, bins=2),
    curves.natural(correct, length), curves.forced_budget({8: correct}),
    curves.best_of_n(correct, length, [4]),
  ]  # fmt: skip
  for curve in every:
    widths = np.subtract(curve["high"], curve["low"])
    np.testing.assert_allclose(widths, 0.1936, atol=1e-4)
