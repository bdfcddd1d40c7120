"""What a sweep as one program saves: its members side by side against the same members one after the other.

Each form runs in a process of its own, from its start to its end: imports, compilation, host verification and
the short measurement of layouts included. Cold starts, diagnostics and long final tests are left out, since
both forms share them.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
BARE = {
  "sft.steps": 0,
  "diagnostics.every": 0,
  "eval.final_problems": 16,
  "eval.samples": 1,
  "eval.batch": 16,
}
BETAS = (0.0, 0.01, 0.03, 0.1)
FORMS = ("stepwise", "fused")


def config_of(size: str, members: int, steps: int, out: str, form: str) -> Any:
  """The SweepConfig of one measurement: `members` in four strengths, or fewer of them."""
  from o1jax.config import Arm, Check, Claim, SweepConfig, replaced, xs
  from o1jax.io.run_config import load_experiment

  fields = {
    **BARE,
    "rl.steps": steps,
    "rl.kl.coef": 0.01,
    "rl.pad_multiple": 0 if form == "fused" else 16,
    "log.progress": False,
  }
  bases = {
    "XS": lambda: xs("XS", fields),
    "quickstart": lambda: replaced(
      load_experiment(str(ROOT / "experiments" / "quickstart.py")),
      {**fields, "controls": False, "eval.every": (0, 0), "eval.budgets": (), "eval.control_samples": 2},
    ),
  }
  arms = tuple(Arm(f"beta={beta:g}", {"rl.kl.coef": beta}, beta) for beta in BETAS[: min(members, 4)])
  claim = Claim("none", "none", "none", (Check("falling", "kl/k3"),))
  base = replaced(bases[size](), {"out": out, "name": form})
  return SweepConfig(base, arms, claim, seeds=tuple(range(members // len(arms))), fused=form == "fused")


def run(size: str, members: int, steps: int, form: str) -> int:
  """One form of one size, in this process."""
  from o1jax.sweep.run import sweep

  with tempfile.TemporaryDirectory() as out:
    config = config_of(size, members, steps, out, form)
    return sweep(config, experiment=__file__, command="bench", record=False, full=False, resume=False)


def measure(size: str, members: int, steps: int, repeats: int) -> dict[str, Any]:
  """Seconds of both forms, taking turns, and how many times faster the fused one is (medians)."""
  import statistics

  env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
  seconds: dict[str, list[float]] = {form: [] for form in FORMS}
  for _ in range(repeats):
    for form in FORMS:
      command = [sys.executable, __file__, size, str(members), str(steps), form]
      began = time.perf_counter()
      subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
      seconds[form].append(time.perf_counter() - began)
  medians = {form: statistics.median(taken) for form, taken in seconds.items()}
  return {
    "population": size, "members": members, "steps": steps, "repeats": repeats, "seconds": seconds,
    **{f"{form}_s": value for form, value in medians.items()},
    "speedup": medians["stepwise"] / medians["fused"],
  }  # fmt: skip


def main(cases: list[tuple[str, int, int]], repeats: int) -> int:
  """A JSON line for each (size, members, steps)."""
  for size, members, steps in cases:
    print(json.dumps(measure(size, members, steps, repeats)), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
