"""Estimators over the samples of one problem: pass@k, maj@k, and the KL bound of best-of-n."""

import itertools
import math
from typing import Sequence

import numpy as np

DRAWS = 1000  # k-subsets drawn where all are too many
EXACT_SUBSETS = 5000  # enumerated up to here


def pass_at_k(n: int, correct: np.ndarray, k: int) -> np.ndarray:
  """Unbiased probability that k of n samples hold a correct one (Chen et al. 2021, eq. 1); f64 of correct's shape.

  correct: counts i[...] of correct samples among n. Raises ValueError unless 1 <= k <= n.
  """
  if not 1 <= k <= n:
    raise ValueError(f"pass@{k} of {n} samples")
  wrong = n - np.asarray(correct)[..., None]
  steps = np.arange(
    n - k + 1, n + 1
  )  # prod over i = n-c+1..n of 1 - k/i, written over the k factors of C(n-c,k)/C(n,k)
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

  Equal strings are one class; None (unparsable) is a class that never wins. Exact where there are few subsets, else
  the mean over 1,000 draws from a fixed key. Raises ValueError unless 1 <= k <= n.
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


def best_of_n_kl(n: int) -> float:
  """Upper bound on KL(best-of-n || policy) in nats: log n - (n - 1) / n (Stiennon et al. 2020, appendix G.3)."""
  return math.log(n) - (n - 1) / n
