"""Evaluation: parameters and held-out problems in, accuracies with intervals and test-time-compute curves out.

Flow: K samples a problem -> verdicts -> pass@k, maj@k and their intervals; lengths and verdicts together give the
curves. A forced budget replaces every early stop by the task's retry token, in one run to the largest budget, whose
prefixes are scored as the smaller ones.
"""

import dataclasses
import pathlib
from typing import Any, Mapping, Sequence

import numpy as np
import rich

from o1jax.config import EvalConfig, require
from o1jax.parallel.sharding import batch_rows
from o1jax.evaluate.samples import Graded, draw_samples, grade, sample_and_grade, sample_config
from o1jax.evaluate.setup import Setup, held_out, in_mesh, load_run
from o1jax.io.log import write_json
from o1jax.scaling import curves, passk, stats
from o1jax.verifiers.base import Problem


def control(cfg: EvalConfig) -> EvalConfig:
  """The evaluation of controls and forced budgets: fewer samples a problem, as many rows a call."""
  batch = cfg.batch * max(cfg.samples // cfg.control_samples, 1)
  return dataclasses.replace(cfg, samples=cfg.control_samples, batch=batch)


def forced_budget(
  setup: Setup, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> dict[int, Graded]:
  """budget -> graded prefixes of one run to the largest budget, in which every early stop becomes the retry token."""
  task = setup.task
  early = [t for t in (*task.stop_tokens, task.give_up_token) if t is not None]
  swaps: Mapping[int, Any] = dict.fromkeys(early, task.retry_token)
  cfg = control(cfg)
  tokens, _ = draw_samples(
    setup, params, problems, cfg, sample_config(setup, cfg, cfg.budgets[-1]), step, swaps
  )
  full = lambda b: np.full(len(tokens), b)
  return {b: grade(setup, problems, [row[:b] for row in tokens], full(b)) for b in cfg.budgets}


def figures(setup: Setup, graded: Graded) -> dict[str, Any]:
  """What summary.json says of one evaluation, its curves apart."""
  n, samples = graded.correct.shape
  low, high = stats.share_ci(graded.correct.mean(1))
  tries = np.asarray(
    [[setup.task.count_tries(p, t) for t in row] for p, row in zip(graded.problems, graded.texts)]
  )
  k = min(8, samples)
  answers = [[v.parsed for v in row] for row in graded.verdicts]
  return {
    "pass@1": float(graded.correct.mean()),
    "pass@1_ci95": [low, high],
    f"pass@{k}": float(np.mean(passk.pass_at_k(samples, graded.correct.sum(1), k))),
    f"maj@{k}": float(np.mean([passk.maj_at_k(a, list(c), k) for a, c in zip(answers, graded.correct)])),
    "mean_length": float(graded.length.mean()),
    "tries_per_response": float(tries.mean()),
    "success_per_try": float(graded.correct.sum() / tries.sum())
    if tries.sum()
    else None,  # None: nothing was tried
    "problems": n,
    "samples": samples,
    **_by_source(setup, graded),
  }


def _by_source(setup: Setup, graded: Graded) -> dict[str, float]:
  """`pass@1/<source>` of a mixture; {} of one task."""
  sources = np.asarray([problem.source for problem in graded.problems])
  there = [name for name in setup.task.shares if (sources == name).any()]
  return {f"pass@1/{name}": float(graded.correct[sources == name].mean()) for name in there}


def all_curves(
  setup: Setup, params: Any, problems: Sequence[Problem], graded: Graded, cfg: EvalConfig, step: int
) -> dict:
  """Accuracy against completion tokens: pooled, within-prompt, forced budget, natural stopping, best of n."""
  out: dict[str, Any] = {
    "pooled": curves.pooled_bins(graded.correct, graded.length),
    "within_prompt": curves.within_prompt_bins(graded.correct, graded.length),
    "natural": curves.natural(graded.correct, graded.length),
  }
  if cfg.budgets:
    forced = forced_budget(setup, params, problems, cfg, step)
    correct = {b: g.correct for b, g in forced.items()}
    out["forced_budget"] = curves.forced_budget(correct)
    first, last = (correct[cfg.budgets[i]].mean(1) for i in (0, -1))
    rng = np.random.default_rng(0)
    out["forced_budget_gain"] = stats.paired_difference(last, first, rng, cfg.bootstrap)
    out["best_of_n"] = curves.best_of_n(graded.correct, graded.length, list(cfg.budgets))
  return out


def evaluate(
  setup: Setup, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> tuple[dict, Graded]:
  """(figures with their curves, the graded samples) of natural stopping on `problems`."""
  graded = sample_and_grade(setup, params, problems, cfg, step)
  told = figures(setup, graded)
  return {**told, "curves": all_curves(setup, params, problems, graded, cfg, step)}, graded


def evaluate_run(run: str, *, overrides: EvalConfig) -> int:
  """`o1jax eval RUN`: evaluates the newest checkpoint, prints the figures and writes RUN/eval.json. Returns 0."""
  setup, params, step = load_run(run, overrides)
  problems = held_out(setup, overrides.final_problems, "eval.final_problems")
  with in_mesh(setup):
    told, _ = evaluate(setup, params, problems, overrides, step)
  write_json(pathlib.Path(run) / "eval.json", {"step": step, **told})
  rich.print({"step": step, **{k: v for k, v in told.items() if k != "curves"}})
  return 0


def sample_run(run: str, prompt: str, *, samples: int, temperature: float, seed: int) -> int:
  """`o1jax sample RUN --prompt ...`: prints `samples` responses of the newest checkpoint. Returns 0."""
  several = temperature > 0 or samples == 1
  require(several, "--samples", "must be 1 with --temperature 0, which is greedy: all would be equal")
  setup, params, step = load_run(run)
  setup.task.tokenizer.require_known(prompt, "--prompt")
  problem = Problem(prompt, prompt, "", "prompt")
  cfg = dataclasses.replace(
    setup.config.eval, samples=samples, temperature=temperature, batch=batch_rows(setup.mesh)
  )
  setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, seed=seed))
  sampling = sample_config(setup, cfg, cfg.max_tokens)
  with in_mesh(setup):
    tokens, _ = draw_samples(setup, params, [problem], cfg, sampling, step)
  for row in tokens:
    print(setup.task.tokenizer.decode(row))
  return 0
