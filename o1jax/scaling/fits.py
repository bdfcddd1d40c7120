"""The laws that sweeps are held against, fitted by linear least squares.

Each of them is linear in its coefficients, so the fit is exact and has no starting point. Left out: extrapolation.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class EntropyLaw:
  """R = -a exp(H) + b."""

  a: float
  b: float
  r2: float
  line_r2: float  # of R = -a H + b: where it is as high, the exponential's form is not shown


@dataclasses.dataclass(frozen=True)
class GaoLaw:
  """R = start + d (a - b g(d)); g = log for RL, g(d) = d for best-of-n."""

  a: float
  b: float
  start: float  # R at d = 0
  r2: float
  peak: float  # the d > 0 at which R is highest; infinite where b <= 0


def least_squares(columns: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
  """Coefficients f64[k] of `columns` f[n, k] that fit `target` f[n], and R^2 (NaN where the target is constant).

  Raises ValueError unless there are more points than coefficients.
  """
  if len(target) <= columns.shape[1]:
    raise ValueError(f"{len(target)} points for {columns.shape[1]} coefficients")
  coefficients = np.linalg.lstsq(columns, target, rcond=None)[0]
  spread = float(np.sum((target - target.mean()) ** 2))
  missed = float(np.sum((target - columns @ coefficients) ** 2))
  return coefficients, 1.0 - missed / spread if spread > 0 else math.nan


def residuals(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
  """What `columns` f[n, k] cannot fit of `target`, f[n] or, one fit a column, f[n, m]; of its shape."""
  return target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]


def entropy_columns(entropy: np.ndarray) -> np.ndarray:
  """f[n, 2] what a and b multiply in R = -a exp(H) + b; entropy f[n]."""
  return np.stack([-np.exp(entropy), np.ones_like(entropy)], 1)


def gao_rl_columns(distance: np.ndarray) -> np.ndarray:
  """f[n, 3] what start, a and b multiply in R = start + d (a - b log d), d log d = 0 at 0; distance f[n]."""
  bend = distance * np.log(np.where(distance > 0, distance, 1.0))
  return np.stack([np.ones_like(distance), distance, -bend], 1)


def gao_best_of_n_columns(distance: np.ndarray) -> np.ndarray:
  """f[n, 3] what start, a and b multiply in R = start + d (a - b d); distance f[n]."""
  return np.stack([np.ones_like(distance), distance, -(distance**2)], 1)


def entropy_law(entropy: np.ndarray, reward: np.ndarray) -> EntropyLaw:
  """Reward f[n] against policy entropy f[n], nats a token (Cui et al. 2025, section 2)."""
  (a, b), r2 = least_squares(entropy_columns(entropy), reward)
  _, line_r2 = least_squares(np.stack([-entropy, np.ones_like(entropy)], 1), reward)
  return EntropyLaw(float(a), float(b), r2, line_r2)


def gao_rl(distance: np.ndarray, reward: np.ndarray) -> GaoLaw:
  """R = d (a - b log d) for RL (Gao et al. 2022, section 3.1); distance f[n] = sqrt KL to the start, reward f[n].

  The paper counts R from the starting policy's; here the start is a third coefficient, so that one noisy first figure
  does not move the others. A constant factor of d is absorbed by a, b and the form, so that nats a token serve as well
  as nats a completion while the length stays; where it drifts they do not.
  """
  (start, a, b), r2 = least_squares(gao_rl_columns(distance), reward)
  return GaoLaw(float(a), float(b), float(start), r2, math.exp(min(a / b - 1, 700.0)) if b > 0 else math.inf)


def gao_best_of_n(distance: np.ndarray, reward: np.ndarray) -> GaoLaw:
  """R = d (a - b d) for best-of-n (Gao et al. 2022, section 3.1); arguments as in `gao_rl`."""
  (start, a, b), r2 = least_squares(gao_best_of_n_columns(distance), reward)
  return GaoLaw(float(a), float(b), float(start), r2, float(a) / (2 * b) if b > 0 else math.inf)
