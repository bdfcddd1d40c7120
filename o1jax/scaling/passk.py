"""Estimators over the samples of one problem: pass@k, maj@k, and the KL bound of best-of-n."""

import itertools
import math
from typing import Sequence

import numpy as np

EXACT_SUBSETS = 5000  # the most k-subsets that are enumerated
DRAWS = 1000  # sampled where there are more


def pass_at_k(n: int, correct: np.ndarray, k: int) -> np.ndarray:
  """Unbiased estimate, f64[...], of the probability that k samples hold a correct one (Chen et al. 2021, eq.
  1).

  correct: numbers i[...] of correct samples among n. Raises ValueError unless 1 <= k <= n.
  """
  if not 1 <= k <= n:
    raise ValueError(f"pass@{k} of {n} samples")
  wrong = n - np.asarray(correct)[..., None]
  # The product over i = n-c+1..n of 1 - k/i, as one over the k factors of C(n-c,k) / C(n,k).
  steps = np.arange(n - k + 1, n + 1)
  product = np.prod(np.clip((wrong - (n - steps)) / steps, 0.0, None), axis=-1)
  return 1.0 - np.where(wrong[..., 0] < k, 0.0, product)


def _majority(answers: list[str | None], correct: list[bool]) -> float:
  """Share of the top-voted answers that are correct; an unparsed answer never wins."""
  votes: dict[str, int] = {}
  right: dict[str, bool] = {}
  for answer, good in zip(answers, correct):
    if answer is not None:
      votes[answer] = votes.get(answer, 0) + 1
      right[answer] = right.get(answer, False) or good
  if not votes:
    return 0.0
  top = max(votes.values())
  winners = [answer for answer, count in votes.items() if count == top]
  return sum(right[answer] for answer in winners) / len(winners)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
  """Expected accuracy of the majority answer over k-subsets of the samples, ties split (Wang et al. 2023).

  Equal strings are one class; None (unparsable) never wins. Exact for up to EXACT_SUBSETS subsets, else the
  mean over DRAWS subsets from a fixed seed. Raises ValueError unless 1 <= k <= n.
  """
  n = len(answers)
  if not 1 <= k <= n:
    raise ValueError(f"maj@{k} of {n} samples")
  if math.comb(n, k) <= EXACT_SUBSETS:
    subsets = list(itertools.combinations(range(n), k))
  else:
    rng = np.random.default_rng(0)
    subsets = [tuple(rng.choice(n, k, replace=False)) for _ in range(DRAWS)]
  score = [_majority([answers[i] for i in s], [bool(correct[i]) for i in s]) for s in subsets]
  return float(np.mean(score))


def sizes(samples: int) -> list[int]:
  """1, 2, 4, ... up to the number of samples."""
  return [2**i for i in range(samples.bit_length())]


def best_of_n(scores: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
  """f64[problems] mean, over all n-subsets of the samples, of the value of the subset's best-scored sample.

  scores, values f[problems, K]. In ascending order of score, sample i (from 1) is the best of C(i - 1, n - 1)
  of the C(K, n) subsets. Samples of equal score share the mean of their values. Raises ValueError unless 1 <=
  n <= K.
  """
  count = scores.shape[1]
  if not 1 <= n <= count:
    raise ValueError(f"best of {n} of {count} samples")
  weights = np.array([math.comb(i, n - 1) / math.comb(count, n) for i in range(count)])
  return np.array([weights @ _shared(row, value) for row, value in zip(scores, values, strict=True)])


def _shared(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
  """f64[K] values in ascending order of score, each the mean of those with its score."""
  _, which, count = np.unique(scores, return_inverse=True, return_counts=True)
  means = np.bincount(which, np.asarray(values, np.float64)) / count
  return np.repeat(means, count)


def best_of_n_kl(n: int) -> float:
  """Upper bound on KL(best-of-n || policy), nats: log n - (n - 1) / n (Stiennon et al. 2020, G.3)."""
  return math.log(n) - (n - 1) / n
