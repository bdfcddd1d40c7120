"""Intervals: a closed form for many problems, coverage by simulation, pairing, and seeds."""

import math
import statistics

import numpy as np
import pytest

from o1jax.scaling.stats import area_under_roc, bootstrap_ci, paired_bootstrap, seeds_ci

Z = statistics.NormalDist().inv_cdf(0.975)
RESAMPLES = 4000
# Four standard errors of a 2.5% quantile of RESAMPLES normal draws, in units of the draws' standard deviation.
QUANTILE_ERROR = 4 * math.sqrt(0.025 * 0.975 / RESAMPLES) / statistics.NormalDist().pdf(Z)


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng(seed)


def test_the_interval_is_the_normal_one_for_many_problems() -> None:
  values = rng(1).random(400) < 0.3
  low, high = bootstrap_ci(values, rng(), RESAMPLES)
  error = values.std() / math.sqrt(len(values))
  # A mean of 400 yes-or-no values moves in steps of 1 / 400.
  slack = QUANTILE_ERROR * error + 1 / 400
  assert low == pytest.approx(values.mean() - Z * error, abs=slack)
  assert high == pytest.approx(values.mean() + Z * error, abs=slack)


def test_the_interval_covers_the_truth_95_times_in_100() -> None:
  truth, problems, samples, trials = 0.4, 80, 4, 500
  draws = rng(2).binomial(samples, truth, size=(trials, problems)) / samples
  intervals = [bootstrap_ci(row, rng(i), 400) for i, row in enumerate(draws)]
  covered = np.mean([low <= truth <= high for low, high in intervals])
  assert 0.925 <= covered <= 0.975


def test_pairing_narrows_the_interval_of_correlated_runs() -> None:
  easy = rng(3).random(300)
  a, b = (easy + 0.1 * rng(seed).standard_normal(300) for seed in (4, 5))
  paired = paired_bootstrap(a + 0.05, b, rng(), RESAMPLES)
  assert paired["mean"] == pytest.approx(np.mean(a) + 0.05 - np.mean(b), abs=1e-15)
  error = np.std(a - b) / math.sqrt(300)
  expected = [paired["mean"] - Z * error, paired["mean"] + Z * error]
  np.testing.assert_allclose(paired["ci95"], expected, atol=QUANTILE_ERROR * error)
  unpaired = 2 * Z * math.hypot(np.std(a), np.std(b)) / math.sqrt(300)
  assert np.diff(paired["ci95"])[0] < unpaired / 2


def test_share_at_most_zero_is_the_probability_of_no_gain() -> None:
  noise = rng(6).standard_normal(400)
  noise = (noise - noise.mean()) / noise.std()
  for mean in (-0.05, 0.0, 0.05):
    told = paired_bootstrap(noise + mean, np.zeros(400), rng(), RESAMPLES)
    expected = statistics.NormalDist().cdf(-mean * math.sqrt(400))
    assert told["share_at_most_zero"] == pytest.approx(expected, abs=0.03)
  same = paired_bootstrap(noise, noise, rng())
  assert same == {"mean": 0.0, "ci95": [0.0, 0.0], "share_at_most_zero": 1.0}
  assert paired_bootstrap(noise + 9, noise, rng())["share_at_most_zero"] == 0.0


def test_the_interval_of_two_exact_seeds_spans_both() -> None:
  assert seeds_ci([np.full(5, 0.2), np.full(7, 0.6)], rng()) == pytest.approx((0.2, 0.6), abs=1e-15)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_seeds_that_agree_give_the_interval_of_all_their_problems(seeds) -> None:
  noise = rng(7).standard_normal((seeds, 100))
  runs = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
  expected = Z / math.sqrt(100 * seeds)
  np.testing.assert_allclose(
    seeds_ci(list(runs), rng(), RESAMPLES), [-expected, expected], atol=QUANTILE_ERROR * expected / Z
  )


def test_seeds_that_differ_widen_the_interval() -> None:
  runs = [rng(i).standard_normal(200) + shift for i, shift in enumerate((-0.5, 0.0, 0.1, 0.6))]
  low, high = seeds_ci(runs, rng())
  pooled_low, pooled_high = bootstrap_ci(np.concatenate(runs), rng())
  assert low < pooled_low < np.mean(runs) < pooled_high < high
  assert high - low > 2 * (pooled_high - pooled_low)


def test_nothing_to_resample_is_refused() -> None:
  with pytest.raises(ValueError, match="at least one problem"):
    bootstrap_ci(np.array([]), rng())
  with pytest.raises(ValueError, match="at least one problem"):
    paired_bootstrap(np.array([]), np.array([]), rng())
  with pytest.raises(ValueError, match="at least one problem"):
    seeds_ci([np.ones(3), np.array([])], rng())
  with pytest.raises(ValueError):
    seeds_ci([], rng())


def test_the_area_under_the_roc_counts_pairs() -> None:
  rng = np.random.default_rng(0)
  scores, correct = rng.integers(0, 5, 40), rng.random(40) < 0.4
  pairs = [(a > b) + (a == b) / 2 for a in scores[correct] for b in scores[~correct]]
  assert area_under_roc(scores, correct) == pytest.approx(np.mean(pairs))
  assert area_under_roc(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
  assert math.isnan(area_under_roc(scores, np.ones(40, bool)))
