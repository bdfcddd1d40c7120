"""The learned rewards of a sweep: taught once for all members that agree in what decides them, and put to best-of-n.

    cold start -> completions of training problems, verified -> proxy, saved -> RL
    cold start -> completions of held-out problems, verified -> best-of-n by the proxy, judged by the verifier

Noise comes from the member's seed and the stream "proxy": step 0 for the examples, 1 for learning, 2 for best-of-n.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich

from o1jax import evaluate as ev
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.run_config import config_to_dict
from o1jax.model.transformer import Decoder
from o1jax.rl.diagnostics import test
from o1jax.rl.proxy import Examples, collect, fit, init, logits
from o1jax.rl.sample import SampleConfig, still, stream_key
from o1jax.rl.score import Grouped
from o1jax.scaling.passk import best_of_n, sizes
from o1jax.scaling.stats import area_under_roc
from o1jax.sweep.device import Block, member_setup, padded, problem_rows
from o1jax.sweep.members import Member, cold_start_key
from o1jax.tasks.stream import draw_order
from o1jax.types import Rollout, TrainState

COLLECTED = 256  # completions that are drawn at a time for the proxy to learn from


def proxy_key(member: Member) -> str:
  """Names what decides a proxy: members that agree in it have the same one."""
  data = config_to_dict(member.config)["rl"]
  data["proxy"].pop("best_of")
  decides = [data[name] for name in ("proxy", "max_prompt", "max_tokens", "temperature", "problems")]
  digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]
  return f"{cold_start_key(member.config)}-{digest}"


def _none(block: Block, colds: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  """The verifier pays: there is no proxy."""
  del colds, folder
  return {member.name: None for member in block.members}


def _outcome(block: Block, colds: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  held: dict[str, Any] = {}
  for member in block.members:
    key = proxy_key(member)
    if key not in held:
      cold = colds[cold_start_key(member.config)].params
      held[key] = _proxy(member_setup(block, member), cold, folder / "proxy" / key)
  return {member.name: held[proxy_key(member)] for member in block.members}


# kind -> (block, cold starts by `cold_start_key`, folder of the sweep) -> member's name -> parameters of its proxy, or None
PROXIES: dict[str, Callable[[Block, Mapping[str, Any], pathlib.Path], dict[str, Any]]] = {
  "none": _none,
  "outcome": _outcome,
}


def _proxy(setup: ev.Setup, cold: Any, folder: pathlib.Path) -> Any:
  """A proxy on the host: read where it was saved, else taught and saved."""
  cfg, seed = setup.config.rl.proxy, setup.config.seed
  like = TrainState(jnp.int32(cfg.steps), init(cold), ())
  with Checkpoints(folder, keep=1) as saved:
    if saved.latest() == cfg.steps:
      return jax.device_get(saved.restore(cfg.steps, jax.tree.map(jnp.asarray, like))[0].params)
    examples = _examples(setup, cold)
    proxy, losses = fit(
      cold, examples, stream_key(seed, "proxy", 1), model=setup.model, prompt=setup.config.rl.max_prompt, cfg=cfg
    )  # fmt: skip
    told = {"correct": float(examples.label.mean()), "loss": float(losses[-max(cfg.steps // 10, 1) :].mean())}
    rich.print(
      f"proxy {folder.name}: {cfg.examples} examples, {told['correct']:.2f} correct, loss {told['loss']:.3f}"
    )
    saved.save(cfg.steps, dataclasses.replace(like, params=proxy), told)
  return jax.device_get(proxy)


def _examples(setup: ev.Setup, cold: Any) -> Examples:
  """`rl.proxy.examples` completions of training problems, in the order of the run's own stream of problems."""
  task, rl, seed = setup.task, setup.config.rl, setup.config.seed
  assert task.device is not None
  order = draw_order(len(task.train[: rl.problems]), seed, 0, rl.proxy.examples)
  batch = min(COLLECTED, rl.proxy.examples)
  held = collect(
    cold, padded(problem_rows(setup, [task.train[i] for i in order]), batch), stream_key(seed, "proxy", 0),
    still(rl.temperature), model=setup.model,
    sampling=SampleConfig(rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad),
    verify=task.device.verify, batch=batch,
  )  # fmt: skip
  return jax.tree.map(lambda a: a[: rl.proxy.examples], held)


# Best of n


class Drawn(NamedTuple):
  """K completions each of n held-out problems, filled up to whole batches of `batch` problems."""

  rollout: Rollout
  correct: jax.Array  # bool[n * K]
  samples: int
  batch: int


@functools.partial(jax.jit, static_argnames=("model", "prompt", "samples", "batch"))
def _judged(
  proxy: Any, rollout: Rollout, *, model: Decoder, prompt: int, samples: int, batch: int
) -> jax.Array:
  """f32[n * K] logits of the proxy, `batch` problems at a time."""
  blocks = jax.tree.map(lambda a: a.reshape(-1, batch * samples, *a.shape[1:]), rollout)
  one = lambda block: logits(proxy, block, model=model, layout=Grouped(prompt, samples))
  return jax.lax.map(one, blocks).reshape(-1)


_draw = jax.jit(test, static_argnames=("model", "samples", "sampling", "batch"))


def _drawn(setup: ev.Setup, cold: Any) -> Drawn:
  """What the policy that RL begins with says to the final tests' held-out problems, as RL samples it."""
  task, rl, cfg = setup.task, setup.config.rl, setup.config.eval
  assert task.device is not None
  samples = rl.proxy.best_of
  batch = max(1, cfg.batch * cfg.samples // samples)  # as many rows at a time as in the final tests
  rows = padded(problem_rows(setup, task.held_out[: cfg.final_problems]), batch)
  rollout = _draw(
    cold, rows, stream_key(setup.config.seed, "proxy", 2), still(rl.temperature), model=setup.model, samples=samples,
    sampling=SampleConfig(rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad), batch=batch,
  )  # fmt: skip
  start = rl.max_prompt
  correct = jax.jit(task.device.verify)(
    rollout.tokens[:, start:], rollout.valid[:, start:], rows.task_arrays
  )[1]
  return Drawn(rollout, correct, samples, batch)


def best_of_figures(told: np.ndarray, correct: np.ndarray) -> tuple[dict[str, float], dict[str, list[float]]]:
  """bon/<n>, bon_proxy/<n> for n = 1, 2, 4, ... and how well the proxy judges; logits f[n, K], correct bool[n, K].

  Also bon/<n> by problem, f[n]. bon/<n>: share of problems whose best of n by the proxy is correct. bon_proxy/<n>:
  P(correct) that the proxy gives it.
  proxy/accuracy: share of completions of which it thinks what is true. proxy/auc: of ranking correct before wrong ones.
  """
  chance = 1.0 / (1.0 + np.exp(-told.astype(np.float64)))
  figures = {
    "proxy/accuracy": float(np.mean((told > 0) == correct)),
    "proxy/auc": area_under_roc(told, correct),
  }
  by_problem = {f"bon/{n}": best_of_n(told, correct, n) for n in sizes(told.shape[1])}
  for n in sizes(told.shape[1]):
    figures[f"bon/{n}"] = float(by_problem[f"bon/{n}"].mean())
    figures[f"bon_proxy/{n}"] = float(best_of_n(told, chance, n).mean())
  return figures, {name: row.tolist() for name, row in by_problem.items()}


def best_of(
  block: Block, colds: Mapping[str, Any], proxies: Mapping[str, Any]
) -> list[tuple[dict[str, float], dict[str, list[float]]]]:
  """`best_of_figures` of each member, empty of one without a proxy; completions are drawn once a cold start."""
  drawn: dict[tuple[str, int], Drawn] = {}
  known: dict[tuple[str, int], tuple[dict[str, float], dict[str, list[float]]]] = {}
  for member in block.members:
    if proxies[member.name] is None:
      return [({}, {}) for _ in block.members]  # they are of one kind, as one program runs them
    setup, many = member_setup(block, member), member.config.rl.proxy.best_of
    start, taught = (cold_start_key(member.config), many), (proxy_key(member), many)
    if start not in drawn:
      drawn[start] = _drawn(setup, colds[start[0]].params)
    if taught not in known:
      known[taught] = _put_to_best_of(setup, proxies[member.name], drawn[start])
  return [known[proxy_key(member), member.config.rl.proxy.best_of] for member in block.members]


def _put_to_best_of(
  setup: ev.Setup, proxy: Any, drawn: Drawn
) -> tuple[dict[str, float], dict[str, list[float]]]:
  rollout, correct, samples, batch = drawn
  told = _judged(
    proxy, rollout, model=setup.model, prompt=setup.config.rl.max_prompt, samples=samples, batch=batch
  )
  count = len(setup.task.held_out[: setup.config.eval.final_problems])
  cut = lambda a: np.asarray(a).reshape(-1, samples)[:count]
  return best_of_figures(cut(told), cut(correct))
