"""Evaluation: parameters and held-out problems in, accuracies with intervals and test-time-compute curves
out.

Flow: K samples a problem -> verdicts -> pass@k, maj@k and their intervals; lengths and verdicts together
give the curves. A forced budget replaces every early stop by the task's retry token, in one run to the
largest budget, whose prefixes are scored as the smaller ones.
"""

import dataclasses
import pathlib
from typing import Any, Mapping, Sequence

import numpy as np
import rich

from o1jax.config import EvalConfig, require
from o1jax.evaluate.controls import control_config
from o1jax.io.log import write_json
from o1jax.parallel.sharding import batch_rows
from o1jax.rl.draw import stream_key
from o1jax.rollout.answer import Answerer, Budget, plain
from o1jax.rollout.grade import Graded, grade
from o1jax.rollout.record import property_shares
from o1jax.rollout.setup import Runtime, held_out, in_mesh, load_run
from o1jax.scaling import curves, passk, stats
from o1jax.verifiers.base import Problem


def sample_and_grade(
  runtime: Runtime,
  params: Any,
  problems: Sequence[Problem],
  cfg: EvalConfig,
  step: int,
  answerer: Answerer | None = None,
) -> Graded:
  """K graded responses a problem by an answerer (None: independent samples)."""
  answer = plain(runtime, cfg) if answerer is None else answerer
  key = stream_key(runtime.config.seed, "eval", step)
  responses, _ = answer(params, problems, Budget(cfg.samples, cfg.max_tokens), key)
  return grade(runtime, problems, responses.tokens, responses.lengths)


def forced_budget(
  runtime: Runtime, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> dict[int, Graded]:
  """budget -> graded prefixes of one run to the largest budget, in which every early stop becomes the retry
  token.
  """
  task = runtime.task
  early = [t for t in (*task.stop_tokens, task.give_up_token) if t is not None]
  swaps: Mapping[int, Any] = dict.fromkeys(early, task.retry_token)
  cfg = control_config(cfg)
  key = stream_key(runtime.config.seed, "eval", step)
  budget = Budget(cfg.samples, cfg.budgets[-1])
  tokens = plain(runtime, cfg, swaps)(params, problems, budget, key)[0].tokens

  def prefixes(length: int) -> Graded:
    return grade(runtime, problems, [row[:length] for row in tokens], np.full(len(tokens), length))

  return {length: prefixes(length) for length in cfg.budgets}


def figures(runtime: Runtime, graded: Graded) -> dict[str, Any]:
  """What summary.json says of one evaluation, its curves apart."""
  n, samples = graded.correct.shape
  low, high = stats.share_ci(graded.correct.mean(1))
  tries = np.asarray(
    [[runtime.task.count_tries(p, t) for t in row] for p, row in zip(graded.problems, graded.texts)]
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
    # None: nothing was tried
    "success_per_try": float(graded.correct.sum() / tries.sum()) if tries.sum() else None,
    "problems": n,
    "samples": samples,
    **property_shares(runtime.task, graded.problems, graded.texts),
    **_by_source(runtime, graded),
  }


def _by_source(runtime: Runtime, graded: Graded) -> dict[str, float]:
  """`pass@1/<source>` of a mixture; {} of one task."""
  sources = np.asarray([problem.source for problem in graded.problems])
  there = [name for name in runtime.task.shares if (sources == name).any()]
  return {f"pass@1/{name}": float(graded.correct[sources == name].mean()) for name in there}


def all_curves(
  runtime: Runtime, params: Any, problems: Sequence[Problem], graded: Graded, cfg: EvalConfig, step: int
) -> dict:
  """Accuracy against completion tokens: pooled, within-prompt, forced budget, natural stopping, best of n."""
  out: dict[str, Any] = {
    "pooled": curves.pooled_bins(graded.correct, graded.length),
    "within_prompt": curves.within_prompt_bins(graded.correct, graded.length),
    "natural": curves.natural(graded.correct, graded.length),
  }
  if cfg.budgets:
    forced = forced_budget(runtime, params, problems, cfg, step)
    correct = {b: g.correct for b, g in forced.items()}
    out["forced_budget"] = curves.forced_budget(correct)
    first, last = (correct[cfg.budgets[i]].mean(1) for i in (0, -1))
    rng = np.random.default_rng(0)
    out["forced_budget_gain"] = stats.paired_difference(last, first, rng, cfg.bootstrap)
    out["best_of_n"] = curves.best_of_n(graded.correct, graded.length, list(cfg.budgets))
  return out


def evaluate(
  runtime: Runtime, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> tuple[dict, Graded]:
  """(figures with their curves, the graded samples) of natural stopping on `problems`."""
  graded = sample_and_grade(runtime, params, problems, cfg, step)
  summary = figures(runtime, graded)
  return {**summary, "curves": all_curves(runtime, params, problems, graded, cfg, step)}, graded


def quick_evaluation(runtime: Runtime, params: Any, step: int) -> dict[str, float]:
  """`eval/<figure>` of a small evaluation, for the line of a step."""
  cfg = runtime.config.eval
  problems = held_out(runtime, cfg.problems, "eval.problems")
  summary = figures(runtime, sample_and_grade(runtime, params, problems, cfg, step))
  low, high = summary["pass@1_ci95"]
  return {
    "eval/pass@1": summary["pass@1"], "eval/pass@1_low": low, "eval/pass@1_high": high,
    "eval/mean_length": summary["mean_length"],
  }  # fmt: skip


def evaluate_run(run: str, *, overrides: EvalConfig) -> int:
  """`o1jax eval RUN`: evaluates the newest checkpoint, prints the figures and writes RUN/eval.json. Returns
  0.
  """
  runtime, params, step = load_run(run, overrides)
  problems = held_out(runtime, overrides.final_problems, "eval.final_problems")
  with in_mesh(runtime):
    summary, _ = evaluate(runtime, params, problems, overrides, step)
  write_json(pathlib.Path(run) / "eval.json", {"step": step, **summary})
  rich.print({"step": step, **{k: v for k, v in summary.items() if k != "curves"}})
  return 0


def sample_run(run: str, prompt: str, *, samples: int, temperature: float, seed: int) -> int:
  """`o1jax sample RUN --prompt ...`: prints `samples` responses of the newest checkpoint. Returns 0."""
  several = temperature > 0 or samples == 1
  require(several, "--samples", "must be 1 with --temperature 0, which is greedy: all would be equal")
  runtime, params, step = load_run(run)
  runtime.task.tokenizer.require_known(prompt, "--prompt")
  problem = Problem(prompt, prompt, "", "prompt")
  cfg = dataclasses.replace(
    runtime.config.eval, samples=samples, temperature=temperature, batch=batch_rows(runtime.mesh)
  )
  key = stream_key(seed, "eval", step)
  with in_mesh(runtime):
    responses, _ = plain(runtime, cfg)(params, [problem], Budget(samples, cfg.max_tokens), key)
  for row in responses.tokens:
    print(runtime.task.tokenizer.decode(row))
  return 0
