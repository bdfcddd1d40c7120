"""Laws over synthetic curves: recovered from exact ones, refused where they miss more than noise, undecided
in noise."""

import dataclasses
import math

import numpy as np
import pytest
from claim_members import METRIC, find, member, rng

from o1jax.scaling import fits, ranking
from o1jax.scaling.findings import MemberResult, outcomes


def test_the_entropy_law_is_recovered() -> None:
  members = []
  for seed, a in enumerate((0.29, 0.30, 0.31)):
    entropy = np.linspace(1.0, 0.05, 200)
    curves = {"entropy": entropy, "reward": -a * np.exp(entropy) + 0.9}
    members.append(member("plain", seed, curves=curves))
  finding = find("fit_entropy", members, metric="reward")
  # Averaging five steps of a convex curve moves a by less than one in a thousand.
  assert finding.holds == "yes" and finding.effect == pytest.approx(0.30, abs=1e-3)
  assert "b = 0.900" in finding.measured and "R^2 = 1.00" in finding.measured


STEPS = 320


# An entropy that falls, the accuracy that the law gives it (from 0 to 1), and two that it does not.
ENTROPY = {steps: 0.05 + 1.15 * np.exp(-5 * np.linspace(0, 1, steps)) for steps in (STEPS, 3 * STEPS)}


def follows(shape: str, steps: int) -> np.ndarray:
  """f[steps] from 0 to 1."""
  bought, t = np.exp(ENTROPY[steps]), np.linspace(0, 1, steps)
  return {"law": (bought.max() - bought) / np.ptp(bought), "line": t, "hump": 4 * t * (1 - t)}[shape]


def sampled(shape: str, rows: int, rise: float, steps: int, seed: int, seeds: int = 3) -> np.ndarray:
  """f[seeds, steps] accuracies of `rows` completions a step."""
  return rng(seed).binomial(rows, 0.3 + rise * follows(shape, steps), (seeds, steps)) / rows


@pytest.mark.parametrize(("shape", "rows", "rise", "steps", "least", "most"), [
  ("law", 16, 0.05, 320, 0.0, 0.05), ("law", 16, 0.08, 320, 0.0, 0.05), ("law", 16, 0.12, 320, 0.0, 0.05),
  ("law", 16, 0.08, 960, 0.0, 0.05), ("law", 256, 0.08, 320, 0.0, 0.05),
  ("line", 256, 0.08, 320, 0.95, 1.0), ("hump", 256, 0.08, 320, 0.95, 1.0),
])  # fmt: skip
def test_a_law_is_refused_where_it_misses_more_than_noise_does(shape, rows, rise, steps, least, most) -> None:
  trials, parts = 400, 40
  curves = sampled(shape, rows, rise, steps, 7, 3 * trials).reshape(3 * trials, parts, -1).mean(2)
  columns = fits.entropy_columns(ENTROPY[steps].reshape(parts, -1).mean(1))
  left = fits.residuals(columns, curves.T).T
  r2 = 1 - np.sum(left**2, 1) / np.sum((curves - curves.mean(1, keepdims=True)) ** 2, 1)
  refused = [
    fits.von_neumann(rows, fit.mean()).p < 0.05
    for rows, fit in zip(left.reshape(trials, 3, parts), r2.reshape(trials, 3))
  ]
  assert least <= np.mean(refused) <= most


@pytest.mark.parametrize(("shape", "rows", "rise", "holds", "least"), [
  ("law", 256, 0.08, "yes", 36), ("hump", 256, 0.08, "no", 39), ("line", 16, 0.08, "undecided", 32),
  ("law", 16, 0.05, "undecided", 30), ("law", 16, 0.0, "undecided", 37),
])  # fmt: skip
def test_a_noisy_law_is_undecided_and_a_clear_one_is_told(shape, rows, rise, holds, least) -> None:
  findings = []
  for trial in range(40):
    curves = [{"entropy": ENTROPY[STEPS], "reward": row} for row in sampled(shape, rows, rise, STEPS, trial)]
    members = [member("x", i, curves=own) for i, own in enumerate(curves)]
    findings.append(find("fit_entropy", members, metric="reward"))
  assert [finding.holds for finding in findings].count(holds) >= least
  assert all("Beyond noise it misses" in finding.reading for finding in findings)


def test_pure_noise_refuses_no_law() -> None:
  noise = [rng(seed).random((2, 100)) for seed in range(3)]
  members = [member("x", i, curves={"entropy": e, "reward": r}) for i, (e, r) in enumerate(noise)]
  finding = find("fit_entropy", members, metric="reward")
  assert finding.holds == "undecided" and "not shown" in finding.reading


def best_of(chance: np.ndarray, trial: int, problems: int, seeds: int = 3) -> list[MemberResult]:
  """Members whose best of n solves a problem with chance[i], n = 2^i: the same problems for all n and
  seeds."""
  hard, members = rng(trial).random(problems), []
  for seed in range(seeds):
    solved = (0.8 * hard + 0.2 * rng(1000 * trial + seed).random(problems) < chance[:, None]).astype(float)
    rows = {f"bon/{2**i}": row for i, row in enumerate(solved)}
    final = {name: float(row.mean()) for name, row in rows.items()}
    members.append(MemberResult("few", None, seed, final, rows, {}))
  return members


@pytest.mark.full
def test_best_of_n_takes_its_noise_from_the_problems() -> None:
  d = np.sqrt([math.log(n) - (n - 1) / n for n in 2.0 ** np.arange(7)])
  law, bend = 0.3 + d * (0.4 - 0.1 * d), 0.3 + 0.25 * np.minimum(d, 0.8)
  count = lambda chance, problems: [
    find("fit_gao_bon", best_of(chance, t, problems), metric="bon").holds for t in range(40)
  ]
  assert count(law, 128).count("no") <= 5  # 5%, and two standard errors of 40 trials
  assert count(bend, 512).count("no") >= 38
  assert (
    len(outcomes(best_of(law, 1, 128), "bon/4")["few"][0]) == 128
  )  # figures of one n are paired by problem
  bare = [dataclasses.replace(member, by_problem={}) for member in best_of(law, 1, 128)]
  assert "noise of its points is not known" in find("fit_gao_bon", bare, metric="bon").reading


def test_a_peak_is_told_by_the_seeds_that_show_it() -> None:
  d = np.linspace(0.01, 1.0, 40)
  members = []
  for seed, b in enumerate((0.5, 0.6, 1.0)):  # R = d (0.5 - b log d) has its peak at exp(0.5 / b - 1)
    curves = {
      "kl_reverse": (d * (1 + seed)) ** 2 / 4,
      METRIC: 0.2 + d * (1 + seed) / 2 * (0.5 - b * np.log(d * (1 + seed) / 2)),
    }
    members.append(member("few", seed, curves=curves))
  # 1.0, 0.85 and 0.61 beside ends at 0.5, 1.0 and 1.5.
  assert "lies inside what was measured in 2 of 3 seeds (d up to 1.5)" in find("fit_gao", members).reading


def test_a_noisy_kl_is_averaged_before_its_root() -> None:
  kl = 0.04 * rng(2).standard_normal(4000)
  noisy = member("a", 0, curves={"kl/k3": kl, METRIC: np.zeros(4000)})
  distance, _ = fits.distance_curve(noisy, METRIC, 40)
  assert distance.mean() < 0.04 < 0.08 < fits.distance_curve(noisy, METRIC)[0].mean()
  (path,) = ranking.frontier([noisy], METRIC, 40)
  np.testing.assert_array_equal(path.distance, distance)


def test_the_laws_of_gao_are_recovered() -> None:
  d = np.linspace(0.0, 2.0, 30)
  members = []
  for seed, b in enumerate((0.49, 0.50, 0.51)):
    reward = 0.2 + d * (0.6 - b * np.log(np.where(d > 0, d, 1.0)))
    members.append(member("none", seed, curves={"kl_reverse": d**2, METRIC: reward}))
  finding = find("fit_gao", members)
  assert finding.holds == "yes" and finding.effect == pytest.approx(0.5, abs=1e-9)
  assert "a = 0.600" in finding.measured and "peak at d = 1.22" in finding.measured  # exp(0.6 / 0.5 - 1)
  assert "lies inside what was measured in 3 of 3 seeds (d up to 2)" in finding.reading
  law = fits.gao_best_of_n(d, 0.1 + d * (0.8 - 0.25 * d))
  assert (law.a, law.b, law.start, law.r2, law.peak) == pytest.approx((0.8, 0.25, 0.1, 1.0, 1.6))
  assert fits.gao_rl(d, 0.3 * d).peak > 1e6 or fits.gao_rl(d, 0.3 * d).b <= 0  # a straight line has no peak


def test_best_of_n_follows_its_own_law_over_final_figures() -> None:
  # d^2 = log n - (n - 1) / n: 0, 0.193, 0.636, 1.204, 1.835, 2.497, 3.174 at n = 1, 2, ..., 64.
  members = []
  for seed, b in enumerate((0.19, 0.20, 0.21)):
    final = {"bon/step": 9.0, "bon_proxy/1": 0.5, "other/2": 0.1}
    for n in (64, 1, 2, 4, 8, 16, 32):
      d = math.sqrt(math.log(n) - (n - 1) / n)
      final[f"bon/{n}"] = 0.3 + d * (0.5 - b * d)
    members.append(member("few", seed, final=final))
  finding = find("fit_gao_bon", members, metric="bon")
  assert finding.holds == "yes" and finding.effect == pytest.approx(0.2, abs=1e-9)
  assert "a = 0.500" in finding.measured and "peak at d = 1.25" in finding.measured  # 0.5 / (2 * 0.2)
  assert finding.check == "bon = d (a - b d) over few, d = sqrt KL" and "d up to 1.78" in finding.reading
  assert "The other form d (a - b log d)" in finding.reading
  distance, reward = fits.best_of_n_curve(members[0], "bon")
  np.testing.assert_allclose(distance[:3] ** 2, [0.0, math.log(2) - 0.5, math.log(4) - 0.75])
  assert reward[0] == pytest.approx(0.3) and len(reward) == 7


def test_the_distance_is_of_whole_completions_where_it_is_known() -> None:
  steps = np.linspace(0.0, 1.0, 5)
  curves = {"kl_sequence": 9 * steps, "kl_reverse": steps, METRIC: steps}
  np.testing.assert_allclose(
    fits.distance_curve(member("a", 0, curves=curves), METRIC)[0], 3 * np.sqrt(steps)
  )
  del curves["kl_sequence"]
  np.testing.assert_allclose(fits.distance_curve(member("a", 0, curves=curves), METRIC)[0], np.sqrt(steps))


def test_the_frontier_holds_the_steps_that_have_both() -> None:
  runs = [
    MemberResult("a", None, 0, {}, {}, {"kl_reverse": (np.array([1, 5, 9]), np.array([0.0, 0.04, 0.25])),
                                  METRIC: (np.array([5, 9, 13]), np.array([0.3, 0.4, 0.5]))}),
    member("b", 0, curves={METRIC: [0.1]}),
  ]  # fmt: skip
  (path,) = ranking.frontier(runs, METRIC)
  assert path.arm == "a"
  np.testing.assert_allclose(path.distance, [0.2, 0.5])
  np.testing.assert_allclose(path.reward, [0.3, 0.4])
