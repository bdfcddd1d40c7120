"""Intervals: closed forms, coverage by simulation, pairing, and seeds."""

import math
import statistics

import numpy as np
import pytest

from o1jax.scaling.stats import area_under_roc, paired_difference, seed_effect, share_ci, share_effect

Z = statistics.NormalDist().inv_cdf(0.975)
RESAMPLES = 4000


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng(seed)


def test_the_interval_is_wilsons_by_hand() -> None:
  # z = 1.96, z^2 = 3.8415: 0 of 16 has the upper bound z^2 / (16 + z^2), and 16 of 16 its mirror image.
  assert share_ci(np.zeros(16)) == pytest.approx((0.0, 0.1936), abs=1e-4)
  assert share_ci(np.ones(16)) == pytest.approx((0.8064, 1.0), abs=1e-4)
  # 8 of 16: 0.5 -+ z sqrt(0.25 / 16 + z^2 / 1024) / (1 + z^2 / 16).
  assert share_ci(np.arange(16) % 2) == pytest.approx((0.2800, 0.7200), abs=1e-4)
  # Every problem solved in 4 of 8 samples: no noise is seen between them, and they count as 16 tries.
  assert share_ci(np.full(16, 0.5)) == pytest.approx((0.2800, 0.7200), abs=1e-4)
  assert share_ci(np.full(16, 0.3)) == pytest.approx(share_ci(np.full(16, 3), np.full(16, 10)), abs=1e-12)
  # 512 problems of one half each, half of them by 0.1 more and half by 0.1 less: s = 0.1, and z s / sqrt 512
  # = 0.00866.
  low, high = share_ci(np.tile([0.4, 0.6], 256))
  assert (low, high) == pytest.approx((0.5 - 0.00866, 0.5 + 0.00866), abs=2e-5)


@pytest.mark.parametrize(("problems", "truth"), [(16, 0.05), (16, 0.02), (64, 0.05), (512, 0.02), (80, 0.4)])
def test_the_interval_covers_the_truth_near_the_ends(problems, truth) -> None:
  trials = 2000
  draws = rng(2).random((trials, problems)) < truth
  known = {count: share_ci(np.arange(problems) < count) for count in np.unique(draws.sum(1)).tolist()}
  covered = np.mean([known[count][0] <= truth <= known[count][1] for count in draws.sum(1).tolist()])
  assert covered >= 0.93


def test_several_samples_a_problem_are_fewer_tries_than_samples() -> None:
  # Half of the problems all or nothing, so that eight samples say little more than one: few problems cover
  # less.
  trials, covered = 800, {16: 0.86, 64: 0.91, 512: 0.93}
  for problems, least in covered.items():
    draw = rng(3)
    chance = np.where(draw.random((trials, problems)) < 0.5, draw.random((trials, problems)) < 0.33, 0.33)
    intervals = [share_ci(row) for row in draw.binomial(8, chance) / 8]
    assert np.mean([low <= 0.33 <= high for low, high in intervals]) >= least


def bootstrapped(values: np.ndarray) -> float:
  """The width of the 95% percentile interval of resampled means."""
  n = len(values)
  means = rng(9).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ values / n
  return float(np.diff(np.percentile(means, [2.5, 97.5]))[0])


@pytest.mark.parametrize(("mean", "width", "samples"), [
  (0.307, 0.038, 8), (0.559, 0.046, 8), (0.488, 0.047, 8), (0.588, 0.086, 1), (0.365, 0.080, 1),
  (0.276, 0.037, 8),
])  # fmt: skip
def test_many_problems_have_the_interval_of_a_bootstrap(mean, width, samples) -> None:
  # Quickstart's arms: 512 problems whose chances differ as much as their published intervals say.
  error = width / 2 / Z
  kept = (
    (error**2 * 512 - mean * (1 - mean) / samples) / (mean * (1 - mean) * (1 - 1 / samples))
    if samples > 1
    else 0.5
  )
  spread = 1 / kept - 1  # of a beta distribution, whose chances have this share of all variance
  values = rng(5).binomial(samples, rng(4).beta(mean * spread, (1 - mean) * spread, 512)) / samples
  low, high = share_ci(values)
  assert high - low == pytest.approx(bootstrapped(values), rel=0.05) and high - low == pytest.approx(
    width, rel=0.15
  )
  later = rng(6).binomial(samples, np.clip(values * 0.8 + 0.2, 0, 1)) / samples
  paired = paired_difference(later, values, rng())
  assert np.diff(paired["ci95"])[0] == pytest.approx(bootstrapped(later - values), rel=0.05)


def test_pairing_narrows_the_interval_of_correlated_runs() -> None:
  easy = 0.2 + 0.5 * rng(3).random(300)
  a, b = (easy + 0.02 * rng(seed).standard_normal(300) for seed in (4, 5))
  paired = paired_difference(a + 0.05, b, rng(), RESAMPLES)
  assert paired["mean"] == pytest.approx(np.mean(a) + 0.05 - np.mean(b), abs=1e-15)
  error = np.std(a - b) / math.sqrt(300)
  expected = [paired["mean"] - Z * error, paired["mean"] + Z * error]
  np.testing.assert_allclose(paired["ci95"], expected, atol=0.1 * error)
  unpaired = 2 * Z * math.hypot(np.std(a), np.std(b)) / math.sqrt(300)
  assert np.diff(paired["ci95"])[0] < unpaired / 2


def test_a_paired_difference_of_nothing_has_a_width() -> None:
  # Wilson's bound of 0 of 16 on what was gained and on what was lost: 0.1936 either way.
  for solved in (np.zeros(16), np.ones(16)):
    paired = paired_difference(solved, solved, rng())
    assert paired["mean"] == 0.0 and paired["share_at_most_zero"] == 1.0
    assert paired["ci95"] == pytest.approx([-0.1936, 0.1936], abs=1e-4)
  # All of 16 gained: 1 less the two bounds' distance.
  paired = paired_difference(np.ones(16), np.zeros(16), rng())
  assert paired["mean"] == 1.0
  assert paired["ci95"][0] == pytest.approx(1 - math.hypot(0.1936, 0.1936), abs=1e-4)


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.0), (0.05, 0.05), (0.3, 0.1), (0.02, 0.0)])
def test_paired_differences_cover_the_truth_with_few_problems(gain, loss) -> None:
  draws = rng(8).random((600, 16))
  changes = (draws < gain).astype(float) - (draws > 1 - loss)
  known = {}
  for row in changes:
    key = int((row > 0).sum()), int((row < 0).sum())
    known.setdefault(key, paired_difference(np.maximum(row, 0), np.maximum(-row, 0), rng(), 10)["ci95"])
  keys = [(int((row > 0).sum()), int((row < 0).sum())) for row in changes]
  assert np.mean([known[key][0] <= gain - loss <= known[key][1] for key in keys]) >= 0.93


def test_share_at_most_zero_is_the_probability_of_no_gain() -> None:
  noise = rng(6).standard_normal(400)
  noise = 0.5 + 0.1 * (noise - noise.mean()) / noise.std()
  for mean in (-0.05, 0.0, 0.05):
    paired = paired_difference(noise + 0.1 * mean, np.full(400, 0.5), rng(), RESAMPLES)
    expected = statistics.NormalDist().cdf(-mean * math.sqrt(400))
    assert paired["share_at_most_zero"] == pytest.approx(expected, abs=0.03)
  assert paired_difference(noise, noise - 0.1, rng())["share_at_most_zero"] == 0.0


@pytest.mark.parametrize(
  "values", [np.full((2, 1), 0.0039), 0.1 + np.zeros((3, 1)) + [[1e-17]], np.zeros((3, 64))]
)
def test_seeds_that_agree_exactly_leave_their_noise_unknown(values) -> None:
  effect = seed_effect(values, rng())
  assert effect.p == 1.0 and np.isnan(effect.ci95).all() and effect.mean == pytest.approx(values.mean())
  # Where problems tell of their own noise, there is an interval: of shares near an end, Wilson's.
  effect = share_effect(np.zeros((3, 16)), rng())
  assert effect.ci95 == pytest.approx((0.0, 0.1936), abs=1e-4)


def test_nothing_to_resample_is_refused() -> None:
  with pytest.raises(ValueError, match="at least one problem"):
    share_ci(np.array([]))
  with pytest.raises(ValueError, match="at least one problem"):
    share_ci(np.zeros(3), np.zeros(3))
  with pytest.raises(ValueError, match="at least one problem"):
    paired_difference(np.array([]), np.array([]), rng())


def test_the_area_under_the_roc_counts_pairs() -> None:
  rng = np.random.default_rng(0)
  scores, correct = rng.integers(0, 5, 40), rng.random(40) < 0.4
  pairs = [(a > b) + (a == b) / 2 for a in scores[correct] for b in scores[~correct]]
  assert area_under_roc(scores, correct) == pytest.approx(np.mean(pairs))
  assert area_under_roc(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
  assert math.isnan(area_under_roc(scores, np.ones(40, bool)))
