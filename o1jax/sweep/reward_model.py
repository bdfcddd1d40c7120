"""The reward models of a sweep: each fitted once for all members that agree in what decides it, and scored
as best-of-n.

    cold start -> completions of training problems, verified -> reward model, saved -> RL
    cold start -> completions of held-out problems, verified -> best-of-n by the reward model, judged by the
      verifier

Noise comes from the member's seed and the stream "proxy": step 2 is best-of-n's (`rollout.reward_model` has
the others).
"""

import functools
import hashlib
import json
import pathlib
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.evaluate.heldout import HeldoutResult
from o1jax.io.run_config import config_to_dict
from o1jax.model.transformer import Decoder
from o1jax.rl.diagnostics import sample_blocks
from o1jax.rl.draw import stream_key
from o1jax.rl.reward_model import logits
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.scoring import Grouped
from o1jax.rollout.grade import grade, response_lengths, response_tokens
from o1jax.rollout.reward_model import reward_model_params
from o1jax.rollout.setup import Runtime, in_mesh, padded, verifiable_rows
from o1jax.scaling.passk import best_of_n, sizes
from o1jax.scaling.stats import area_under_roc
from o1jax.sweep.members import Member, RLStart, cold_start_key
from o1jax.sweep.population import MemberGroup, member_runtime
from o1jax.types import Rollout


def reward_model_key(member: Member) -> str:
  """Names what decides a reward model: members that agree in it have the same one."""
  data = config_to_dict(member.config)["rl"]
  data["reward_model"].pop("best_of")
  decides = [data[name] for name in ("reward_model", "max_prompt", "max_tokens", "temperature", "problems")]
  digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]
  return f"{cold_start_key(member.config)}-{digest}"


def member_reward_params(
  group: MemberGroup, colds: Mapping[str, Any], folder: pathlib.Path
) -> dict[str, Any]:
  """Member's name -> parameters of its reward model, None where the verifier pays."""
  if group.runtime.config.rl.reward_model.kind == "none":
    return {member.name: None for member in group.members}
  params: dict[str, Any] = {}
  for member in group.members:
    key = reward_model_key(member)
    if key not in params:
      cold, runtime = colds[cold_start_key(member.config)].params, member_runtime(group, member)
      with in_mesh(runtime):
        params[key] = reward_model_params(runtime, cold, folder / "proxy" / key)
  return {member.name: params[reward_model_key(member)] for member in group.members}


# Best of n


class HeldoutCompletions(NamedTuple):
  """K verified completions each of n held-out problems, filled up to whole batches of `batch` problems."""

  rollout: Rollout
  correct: np.ndarray  # bool[n * K]
  samples: int
  batch: int


@functools.partial(jax.jit, static_argnames=("model", "prompt", "samples", "batch"))
def _scores(
  params: Any, rollout: Rollout, *, model: Decoder, prompt: int, samples: int, batch: int
) -> jax.Array:
  """f32[n * K] logits of the reward model, `batch` problems at a time."""
  layout = Grouped(prompt, samples)
  blocks = jax.tree.map(lambda a: a.reshape(-1, batch * samples, *a.shape[1:]), rollout)
  return jax.lax.map(lambda block: logits(params, block, model=model, layout=layout), blocks).reshape(-1)


_sample = jax.jit(sample_blocks, static_argnames=("model", "samples", "sampling", "batch"))


def _completions(runtime: Runtime, cold: Any) -> HeldoutCompletions:
  """Completions of the final held-out problems by the policy that RL begins with, as RL samples it."""
  task, rl, cfg = runtime.task, runtime.config.rl, runtime.config.eval
  samples, problems = rl.reward_model.best_of, task.held_out[: cfg.final_problems]
  batch = max(1, cfg.batch * cfg.samples // samples)  # as many rows at a time as in the final evaluation
  rows = padded(verifiable_rows(runtime, problems), batch)
  rollout = _sample(
    cold, rows, stream_key(runtime.config.seed, "proxy", 2), jnp.float32(rl.temperature), model=runtime.model,
    samples=samples, batch=batch,
    sampling=SampleConfig(rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad),
  )  # fmt: skip
  if task.device is None:
    tokens = response_tokens(runtime, rollout)
    filled = [problems[i % len(problems)] for i in range(rows.tokens.shape[0])]
    correct = grade(runtime, filled, tokens, response_lengths(rollout)).correct.reshape(-1)
  else:
    response = (a[:, rollout.prompt_width :] for a in (rollout.tokens, rollout.valid))
    correct = np.asarray(jax.jit(task.device.verify)(*response, rows.task_arrays)[1])
  return HeldoutCompletions(rollout, correct, samples, batch)


def best_of_figures(scores: np.ndarray, correct: np.ndarray) -> HeldoutResult:
  """bon/<n>, bon_proxy/<n> for n = 1, 2, 4, ... and how well the model judges; logits f[n, K], correct
  bool[n, K].

  Also bon/<n> by problem, f[n]. bon/<n>: share of problems whose best of n by the model is correct.
  bon_proxy/<n>: P(correct) that the model gives it. proxy/accuracy: share of completions that it judges
  right. proxy/auc: of ranking correct before wrong ones.
  """
  chance = 1.0 / (1.0 + np.exp(-scores.astype(np.float64)))
  figures = {
    "proxy/accuracy": float(np.mean((scores > 0) == correct)),
    "proxy/auc": area_under_roc(scores, correct),
  }
  by_problem: dict[str, list[float]] = {}
  for n in sizes(scores.shape[1]):
    best = best_of_n(scores, correct, n)
    by_problem[f"bon/{n}"] = best.tolist()
    figures[f"bon/{n}"] = float(best.mean())
    figures[f"bon_proxy/{n}"] = float(best_of_n(scores, chance, n).mean())
  return HeldoutResult(figures, by_problem)


def best_of_rows(group: MemberGroup, start: RLStart) -> list[HeldoutResult]:
  """`best_of_figures` of each member, empty of one without a reward model; completions are drawn once a cold
  start.
  """
  if group.runtime.config.rl.reward_model.kind == "none":
    return [HeldoutResult({}, {}) for _ in group.members]
  completions: dict[tuple[str, int], HeldoutCompletions] = {}
  results: dict[tuple[str, int], HeldoutResult] = {}
  rows = []
  for member in group.members:
    runtime, n = member_runtime(group, member), member.config.rl.reward_model.best_of
    cold, model = (cold_start_key(member.config), n), (reward_model_key(member), n)
    with in_mesh(runtime):
      if cold not in completions:
        completions[cold] = _completions(runtime, start.cold_start(member).params)
      if model not in results:
        results[model] = _best_of(runtime, start.reward_params[member.name], completions[cold])
    rows.append(results[model])
  return rows


def _best_of(runtime: Runtime, params: Any, completions: HeldoutCompletions) -> HeldoutResult:
  scores = _scores(
    params,
    completions.rollout,
    model=runtime.model,
    prompt=completions.rollout.prompt_width,
    samples=completions.samples,
    batch=completions.batch,
  )
  count = len(runtime.task.held_out[: runtime.config.eval.final_problems])
  judged = (np.asarray(a).reshape(-1, completions.samples)[:count] for a in (scores, completions.correct))
  return best_of_figures(*judged)
