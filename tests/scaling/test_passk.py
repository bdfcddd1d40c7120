"""pass@k and maj@k against every subset of the samples, and the KL of best-of-n against its integral."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from o1jax.scaling.passk import best_of_n, best_of_n_kl, maj_at_k, pass_at_k, sizes


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n) -> None:
  for k in range(1, n + 1):
    subsets = list(itertools.combinations(range(n), k))
    # The first c samples are the correct ones.
    exact = [Fraction(sum(min(s) < c for s in subsets), len(subsets)) for c in range(n + 1)]
    np.testing.assert_allclose(pass_at_k(n, np.arange(n + 1), k), np.array(exact, float), atol=1e-14, rtol=0)


def test_pass_at_k_is_exact_at_its_ends() -> None:
  counts = np.array([[0, 5], [1, 9]])
  np.testing.assert_array_equal(pass_at_k(9, counts, 9), [[0.0, 1.0], [1.0, 1.0]])
  np.testing.assert_array_equal(pass_at_k(9, np.array([0, 9]), 4), [0.0, 1.0])


@pytest.mark.parametrize(
  ("n", "c", "k"), [(2000, 3, 700), (2000, 1000, 3), (2000, 1999, 1), (20_000, 1, 10_000)]
)
def test_pass_at_k_of_many_samples_does_not_overflow(n, c, k) -> None:
  exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
  assert pass_at_k(n, np.array(c), k) == pytest.approx(float(exact), rel=1e-11)


@pytest.mark.parametrize("k", [0, 4])
def test_k_outside_the_samples_is_refused(k) -> None:
  with pytest.raises(ValueError, match=f"pass@{k} of 3"):
    pass_at_k(3, np.array([1]), k)
  with pytest.raises(ValueError, match=f"maj@{k} of 3"):
    maj_at_k(["a", "b", None], [True, False, False], k)


def majority_of(answers: tuple, solution: str) -> Fraction:
  """1 where the solution alone has most votes, 1 / m where m answers tie and it is one of them; None has no
  vote."""
  ranking = Counter(a for a in answers if a is not None).most_common()
  tied = [answer for answer, votes in ranking if votes == ranking[0][1]]
  return Fraction(solution in tied, max(len(tied), 1))


@pytest.mark.parametrize("seed", range(12))
def test_maj_at_k_is_the_mean_over_all_subsets(seed) -> None:
  rng = np.random.default_rng(seed)
  answers = [["7", "8", "9", None][i] for i in rng.integers(4, size=7)]
  for k in range(1, 8):
    scores = [majority_of(subset, "7") for subset in itertools.combinations(answers, k)]
    exact = sum(scores) / len(scores)
    assert maj_at_k(answers, [a == "7" for a in answers], k) == pytest.approx(float(exact), abs=1e-14)


@pytest.mark.parametrize(
  ("answers", "solution", "expected"),
  [
    (["7", "8"], "7", 1 / 2),
    (["7", "8", "9"], "9", 1 / 3),
    (["7", "7", "8", "8", "9"], "9", 0.0),
    ([None, None, None, "7"], "7", 1.0),
    ([None, None], "7", 0.0),
  ],
)
def test_ties_are_split_and_unparsed_answers_never_win(answers, solution, expected) -> None:
  correct = [a == solution for a in answers]
  assert maj_at_k(answers, correct, len(answers)) == pytest.approx(expected, abs=1e-15)


def test_maj_at_k_of_many_samples_is_near_its_expectation_and_repeats() -> None:
  n, good, k = 40, 22, 31
  answers = ["7"] * good + ["8"] * (n - good)
  correct = [True] * good + [False] * (n - good)
  # Two classes and an odd k: the majority is right where a hypergeometric count exceeds k / 2.
  ways = [math.comb(good, i) * math.comb(n - good, k - i) for i in range(k + 1)]
  exact = sum(ways[k // 2 + 1 :]) / math.comb(n, k)
  estimate = maj_at_k(answers, correct, k)
  assert estimate == maj_at_k(answers, correct, k)
  assert estimate == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 1000))


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_the_kl_of_best_of_n_is_that_of_the_best_of_many_distinct_rewards(n) -> None:
  edges = np.linspace(0.0, 1.0, 200_001)
  best = np.diff(edges**n)  # probability that the best of n falls on each of many equally likely rewards
  kl = np.sum(best * np.log(np.maximum(best, 1e-300) * len(best)))
  assert kl == pytest.approx(best_of_n_kl(n), abs=1e-5)
  assert kl <= best_of_n_kl(n) + 1e-12


@pytest.mark.parametrize("n", range(1, 7))
def test_best_of_n_is_the_mean_over_subsets(n) -> None:
  rng = np.random.default_rng(n)
  scores, values = rng.permuted(np.tile(np.arange(6.0), (3, 1)), axis=1), rng.random((3, 6))
  subsets = list(itertools.combinations(range(6), n))
  exact = [
    np.mean([value[max(s, key=lambda i: row[i])] for s in subsets]) for row, value in zip(scores, values)
  ]
  np.testing.assert_allclose(best_of_n(scores, values, n), exact, atol=1e-14)


def test_the_best_of_like_scores_is_any_of_them() -> None:
  # Of two samples of score 1 one is right. Best of 1: 1/3. Of the three pairs one holds both, two hold one of
  # them.
  scores, values = np.array([[1.0, 0.0, 1.0]]), np.array([[True, False, False]])
  assert best_of_n(scores, values, 1) == pytest.approx([1 / 3])
  assert best_of_n(scores, values, 2) == pytest.approx([1 / 2])
  level = np.zeros((1, 4))
  assert best_of_n(level, np.array([[1, 0, 0, 1]]), 3) == pytest.approx([1 / 2])


def test_best_of_n_by_the_truth_is_pass_at_n() -> None:
  correct = np.random.default_rng(0).random((20, 16)) < 0.3
  for n in sizes(16):
    np.testing.assert_allclose(
      best_of_n(correct.astype(float), correct, n), pass_at_k(16, correct.sum(1), n), atol=1e-12
    )
  assert sizes(16) == [1, 2, 4, 8, 16] and sizes(20) == [1, 2, 4, 8, 16] and sizes(1) == [1]


@pytest.mark.parametrize("n", [0, 4])
def test_best_of_more_than_there_are_is_refused(n) -> None:
  with pytest.raises(ValueError, match=f"best of {n} of 3"):
    best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), n)
