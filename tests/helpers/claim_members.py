"""Synthetic members of a sweep, and the finding of one check over them."""

import numpy as np

from o1jax.config.sweep import Check
from o1jax.scaling import claims
from o1jax.scaling.findings import MemberResult

METRIC = "held_out/pass@1"


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng(seed)


def member(
  arm: str, seed: int, *, strength=None, final=None, problems=None, curves=None, bad_step=None
) -> MemberResult:
  by_problem = {} if problems is None else {"held_out": np.asarray(problems)}
  named = {name: (np.arange(len(values)), np.asarray(values)) for name, values in (curves or {}).items()}
  return MemberResult(arm, strength, seed, final or {}, by_problem, named, bad_step)


def find(
  kind: str, members: list[MemberResult], arms: tuple[str, ...] = (), metric: str = METRIC
) -> claims.Finding:
  (finding,) = claims.test_claim([Check(kind, metric, arms)], members, rng())
  return finding
