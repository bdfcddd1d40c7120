"""Findings about synthetic members: effects that are known, nulls that stay undecided, and laws that are
recovered."""

import math

import numpy as np
import pytest
from claim_members import METRIC, find, member, rng

from o1jax.config.sweep import Check
from o1jax.scaling import claims, ranking, stats
from o1jax.scaling.findings import MemberResult


def finals(values: dict[str, list[float]], strengths: dict[str, float] | None = None) -> list[MemberResult]:
  """Members whose figure is values[arm][seed]."""
  return [
    member(arm, seed, strength=(strengths or {}).get(arm), final={METRIC: value})
    for arm, row in values.items()
    for seed, value in enumerate(row)
  ]


def test_greater_is_the_paired_difference_with_students_interval() -> None:
  # Differences 0.1, 0.2 and 0.3: mean 0.2, standard error 0.1 / sqrt 3, t of two degrees of freedom 4.3027.
  finding = find("greater", finals({"a": [0.5, 0.7, 0.9], "b": [0.4, 0.5, 0.6]}), ("a", "b"))
  assert finding.effect == pytest.approx(0.2) and finding.seeds == 3
  half = 4.30265 * 0.1 / math.sqrt(3)
  assert finding.ci95 == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
  assert finding.holds == "undecided"  # though all three seeds agree
  assert "3 of 3 seeds above 0" in finding.measured and "in 0.25 of such comparisons" in finding.reading


def test_greater_holds_where_seeds_agree_closely_and_fails_the_other_way() -> None:
  members = finals({"a": [0.50, 0.61, 0.70], "b": [0.40, 0.50, 0.60]})
  assert find("greater", members, ("a", "b")).holds == "yes"
  reverse = find("greater", members, ("b", "a"))
  assert reverse.holds == "no" and reverse.effect == pytest.approx(-0.31 / 3) and "0 of 3" in reverse.measured


def test_a_null_effect_is_rarely_decided() -> None:
  decided = 0
  for trial in range(300):
    draws = rng(trial).normal(0.5, 0.05, (2, 4))
    members = finals({"a": list(draws[0]), "b": list(draws[1])})
    decided += find("greater", members, ("a", "b")).holds != "undecided"
  assert decided / 300 <= 0.08  # 5%, and three standard errors of 300 trials are 3.8%


def test_seeds_that_happen_to_agree_do_not_hide_the_noise_of_few_problems() -> None:
  # Every seed solves 6 of 10 against 5 of 10, on other problems: Student's t alone would see no noise at all.
  problems = {"a": [1, 1, 1, 1, 1, 1, 0, 0, 0, 0], "b": [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]}
  members = [member(arm, seed, problems=row) for arm, row in problems.items() for seed in range(3)]
  finding = find("greater", members, ("a", "b"))
  assert finding.effect == pytest.approx(0.1) and finding.holds == "undecided"
  assert finding.ci95[0] < -0.3 and finding.ci95[1] > 0.4


def test_problems_are_paired() -> None:
  # b solves what a solves, but for a tenth of the problems: paired by problem that is certain, unpaired it is
  # not.
  easy = (rng(1).random(200) < 0.5).astype(float)
  less = np.where(np.arange(200) % 10 == 0, 0.0, easy)
  members = [member(arm, s, problems=row) for arm, row in (("a", easy), ("b", less)) for s in range(3)]
  assert find("greater", members, ("a", "b")).holds == "yes"


def test_a_slope_is_counted_by_decade_or_by_rank() -> None:
  strengths = {"s1": 0.001, "s2": 0.01, "s3": 0.1}
  values = {"s1": [0.60, 0.61, 0.62], "s2": [0.50, 0.51, 0.52], "s3": [0.40, 0.412, 0.42]}
  finding = find("falling", finals(values, strengths))
  assert finding.holds == "yes" and finding.effect == pytest.approx(-0.1 + 0.002 / 6)
  assert "tenfold" in finding.check and "0.001: 0.610, 0.01: 0.510, 0.1: 0.411" in finding.reading
  assert find("rising", finals(values, strengths)).holds == "no"
  ranked = find("falling", finals(values, {**strengths, "s1": 0.0}))
  assert ranked.effect == pytest.approx(finding.effect) and "step up" in ranked.check


def test_no_slope_stays_undecided_and_a_hump_is_told() -> None:
  strengths = {"s1": 0.0, "s2": 1.0, "s3": 2.0}
  values = {"s1": [0.41, 0.39, 0.40], "s2": [0.6, 0.6, 0.6], "s3": [0.39, 0.40, 0.41]}
  for kind in ("rising", "falling"):
    finding = find(kind, finals(values, strengths))
    assert finding.holds == "undecided"
    assert "Outside the ends' range, which a slope does not tell: s2 (p < 0.001)." in finding.reading


@pytest.mark.parametrize("arms", [4, 6])
def test_a_hump_of_noise_is_not_told(arms) -> None:
  strengths = {f"s{i}": float(i) for i in range(arms)}
  outside = 0
  for trial in range(200):
    draws = rng(trial).normal(0.5, 0.05, (arms, 4)).tolist()
    outside += "Outside" in find("rising", finals(dict(zip(strengths, draws)), strengths)).reading
  assert outside / 200 <= 0.05


def test_slopes_are_taken_over_seeds_that_finished_all_arms_where_two_did() -> None:
  strengths = {"s1": 1.0, "s2": 10.0, "s3": 100.0}
  values = {"s1": [0.1, 0.1, 0.1], "s2": [0.2, 0.2, 0.9], "s3": [0.3, 0.31, math.nan]}
  finding = find("rising", finals(values, strengths))
  assert finding.effect == pytest.approx(0.1025) and finding.seeds == 2 and finding.holds == "yes"
  values["s3"] = [0.3, math.nan, math.nan]
  finding = find("rising", finals(values, strengths))
  assert finding.effect == pytest.approx((0.1 + 0.1 + 0.8) / 3) and finding.seeds == 3


def shaped(curve: np.ndarray, noise: float, seed: int, arm: str = "x") -> MemberResult:
  return member(arm, seed, curves={METRIC: curve + noise * rng(seed).standard_normal(len(curve))})


def test_a_decline_is_told_from_a_plateau() -> None:
  up = np.linspace(0.2, 0.6, 50)
  fall = [shaped(np.concatenate([up, np.linspace(0.6, 0.3, 50)]), 0.01, seed) for seed in range(4)]
  stay = [shaped(np.concatenate([up, np.full(50, 0.6)]), 0.01, seed) for seed in range(4)]
  rise = [shaped(np.linspace(0.2, 0.6, 100), 0.01, seed) for seed in range(4)]
  assert [find("declines", m).holds for m in (fall, stay, rise)] == ["yes", "no", "no"]
  assert [find("lasts", m).holds for m in (fall, stay, rise)] == ["no", "yes", "yes"]
  # Tenths of the curve: the best one is the last of the rise or the first of the fall, 0.57 on average; the
  # end 0.33.
  assert find("declines", fall).effect == pytest.approx(0.24, abs=0.02)


LOST = {
  "flat": np.zeros(10),
  "risen": np.array([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]),
  "margin": np.array([0, 0.1, 0.2, 0.3, 0.4, 0.36, 0.36, 0.36, 0.36, 0.36]),
  "late": np.array([0, 0.1, 0.2, 0.3, 0.4, 0.39, 0.385, 0.38, 0.37, 0.36]),
}


@pytest.mark.full
@pytest.mark.parametrize(
  ("curve", "wrong"), [("flat", True), ("risen", True), ("margin", False), ("late", False)]
)
@pytest.mark.parametrize("seeds", [2, 3, 4, 6])
def test_the_choice_of_the_best_part_decides_nothing(curve, wrong, seeds) -> None:
  # Curves that lose nothing decline, and curves that lose the whole margin, a tenth of 0.4, last in 2.5%
  # each.
  decided, draws, trials = 0, rng(seeds), 1500
  for noise in 0.035 * draws.standard_normal((trials, seeds, 10)):
    finding = claims.drop(LOST[curve] + noise)
    decided += finding.effect.p < 0.05 and finding.declines == wrong
  assert decided / trials <= 0.037  # 2.5%, and three standard errors


def test_a_member_that_a_nan_stopped_is_left_out_named_and_did_not_last() -> None:
  members = finals({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]})
  members[2] = member("a", 2, final={METRIC: 0.0}, bad_step=17)
  finding = find("greater", members, ("a", "b"))
  assert finding.effect == pytest.approx(0.1) and finding.seeds == 2
  assert finding.reading.endswith("left out of final figures: a seed 2 at step 17.")
  curve = np.linspace(0.2, 0.6, 40)
  runs = [shaped(curve, 0.004, seed) for seed in range(3)]
  assert find("lasts", runs).holds == "yes"
  assert find("lasts", [*runs, member("x", 3, curves={METRIC: curve[:9]}, bad_step=9)]).holds == "no"


@pytest.mark.parametrize(
  ("kind", "arms", "reason"),
  [
    ("greater", ("a", "b", "c"), "compares two arms, and has 3"),
    ("greater", ("a", "missing"), "no seed has finished a and missing"),
    ("rising", (), "two strengths or more"),
    ("fit_entropy", (), "no seed has a curve"),
    ("fit_gao", (), "no seed has a curve"),
    ("fit_gao_bon", (), "no seed has a curve"),
    ("declines", ("a",), "from two seeds or more"),
    ("lasts", ("a",), "from two seeds or more"),
  ],
)
def test_what_cannot_be_tested_says_why(kind, arms, reason) -> None:
  finding = find(kind, finals({"a": [0.1, 0.2], "b": [0.1, 0.3], "c": [0.0, 0.0]}), arms)
  assert finding.holds == "undecided" and math.isnan(finding.effect) and finding.seeds == 0
  assert finding.reading.startswith("Cannot be tested: ") and reason in finding.reading


def test_one_seed_decides_nothing() -> None:
  problems = {"a": np.ones(50), "b": np.zeros(50)}
  finding = find("greater", [member(arm, 0, problems=row) for arm, row in problems.items()], ("a", "b"))
  assert finding.effect == 1.0 and finding.holds == "undecided" and "One seed" in finding.reading


def test_curves_that_agree_exactly_decide_nothing() -> None:
  for curve in (np.linspace(0.2, 0.6, 37), np.linspace(0.6, 0.2, 37)):
    finding = find("lasts", [shaped(curve, 0.0, seed) for seed in range(3)])
    assert finding.holds == "undecided" and "[unknown]" in finding.measured and finding.p == 1.0


@pytest.mark.parametrize("gains", [[0.0039, 0.0039], [0.25, 0.25, 0.25]])
def test_seeds_that_agree_exactly_decide_nothing(gains) -> None:
  members = finals({"a": [0.5 + gain for gain in gains], "b": [0.5] * len(gains)})
  finding = find("greater", members, ("a", "b"))
  assert finding.holds == "undecided" and f"{gains[0]:+.3f} [unknown]" in finding.measured
  assert "leaves their noise unknown" in finding.reading
  ranks = ranking.rank_arms(members, METRIC, rng())
  assert ranks[1].p == 1.0 and "cannot be distinguished from b" in ranking.reading(ranks, METRIC)


def test_a_claims_checks_are_adjusted_for_their_number() -> None:
  # Differences of 0.2 and errors of 0.1 / sqrt 3, 0.02 / sqrt 3 and 0.01 / sqrt 3: p 0.0742, 0.0033 and
  # 0.00083.
  rows = {"x": [0.1, 0.2, 0.3], "y": [0.18, 0.2, 0.22], "z": [0.19, 0.2, 0.21]}
  values = {"none": [0.0, 0.0, 0.0], **rows}
  checks = [Check("greater", METRIC, (arm, "none")) for arm in rows] + [
    Check("greater", "other", ("x", "none"))
  ]
  findings = claims.test_claim(checks, finals(values), rng())
  assert [f.p for f in findings[:3]] == pytest.approx([0.0742, 2 * 0.0033, 3 * 0.00083], abs=1e-4)
  assert [f.holds for f in findings] == ["undecided", "yes", "yes", "undecided"] and math.isnan(findings[3].p)
  assert findings[1].measured.endswith("3 of 3 seeds above 0; p 0.0066, adjusted for 3 checks")
  assert find("greater", finals(values), ("y", "none")).measured.endswith("above 0; p 0.0033")


@pytest.mark.full
def test_sweeps_without_an_effect_seldom_decide_anything() -> None:
  checks = [Check("greater", METRIC, (f"arm{i}", "none")) for i in range(4)]
  decided = 0
  for trial in range(1000):
    draws = rng(trial).normal(0.5, 0.05, (5, 3)).tolist()
    findings = claims.test_claim(
      checks, finals(dict(zip(["none", "arm0", "arm1", "arm2", "arm3"], draws))), rng(trial)
    )
    decided += any(f.holds != "undecided" for f in findings)
  assert decided / 1000 <= 0.065


def test_arms_are_ranked_and_only_those_told_apart_that_are() -> None:
  noise = rng(3).normal(0, 0.004, (3, 4))
  values = {"low": list(0.3 + noise[0]), "near": list(0.6 + noise[1]), "top": list(0.605 + noise[2])}
  ranks = ranking.rank_arms(finals(values), METRIC, rng())
  assert [rank.arm for rank in ranks] == ["top", "near", "low"] and ranks[0].behind is None
  assert ranks[2].behind is not None and ranks[2].behind.mean == pytest.approx(0.305, abs=0.01)
  assert ranks[2].behind.share_at_most_zero == 0.0 and ranks[2].p < 0.01 < 0.05 < ranks[1].p
  text = ranking.reading(ranks, METRIC)
  assert "top has the highest mean held_out/pass@1: 0.6" in text
  assert "It lies above low." in text and "With 4 seeds it cannot be distinguished from near." in text
  assert ranking.reading([], METRIC) == "No arm has finished with held_out/pass@1."


def test_equal_arms_are_seldom_told_apart_from_the_best() -> None:
  wrong = 0
  for trial in range(40):
    draws = rng(trial).normal(0.5, 0.02, (6, 4))
    ranks = ranking.rank_arms(finals({f"arm{i}": list(row) for i, row in enumerate(draws)}), METRIC, rng())
    wrong += any(rank.p < 0.05 for rank in ranks[1:])
  assert wrong / 60 <= 0.11  # 5%, and two standard errors of 60 trials


def test_students_t_and_holm_by_hand() -> None:
  # Tables of the t distribution: 12.706, 4.303, 3.182 and 2.571 at 1, 2, 3 and 5 degrees of freedom.
  assert [round(stats.student_quantile(dof), 3) for dof in (1, 2, 3, 5)] == [12.706, 4.303, 3.182, 2.571]
  assert stats.student_p(1.0, 1) == pytest.approx(0.5) and stats.student_p(math.inf, 4) == 0.0
  assert stats.student_p(math.sqrt(2), 2) == pytest.approx(1 - math.sqrt(0.5))
  assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert stats.holm([0.5, 0.9]) == [1.0, 1.0]


def test_problems_shared_by_the_seeds_do_not_average_out_over_them() -> None:
  # All seeds have the same column of problems: four of them tell no more of the problems than one does.
  problems = rng(4).standard_normal(100)
  spread = stats.seed_means(np.tile(problems, (4, 1)), rng(), 4000).std()
  assert spread == pytest.approx(problems.std() / 10, rel=0.05)
