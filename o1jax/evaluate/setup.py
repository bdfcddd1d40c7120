"""What a run is made of before any parameter: checked configuration, task, model, mesh; and a saved run read back."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
from typing import Any, Sequence

import flax.linen as nn
import jax
import numpy as np

from o1jax.config import EvalConfig, TrainConfig, require
from o1jax.dist.mesh import make_mesh
from o1jax.dist.sharding import RULES, batch_rows, param_shardings, put_rows, state_shardings
from o1jax.io.checkpoint import latest_step, restore_params
from o1jax.io.run_config import META, read_json, read_run_config
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.batch import check_prompt, prompt_batch
from o1jax.rl.sample import stream_key
from o1jax.rl.stages import Stage, first_state
from o1jax.rl.update import first_params
from o1jax.rl.value import ADD_CRITIC, policy_params
from o1jax.tasks.base import Task, check_demonstrations
from o1jax.tasks.catalog import build_task
from o1jax.types import TrainState
from o1jax.verifiers.base import Problem


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a run is made of before any parameter: resolved configuration, task, model and mesh."""

  config: TrainConfig
  task: Task
  model: Decoder
  mesh: jax.sharding.Mesh


def prepare(config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> Setup:
  """Builds task, model and mesh (of `devices`, None: all). Raises ConfigError where they do not fit each other."""
  config.validate()
  task = build_task(config.task)
  vocab = config.model.vocab or task.tokenizer.vocab_size
  require(
    vocab >= task.tokenizer.vocab_size,
    "model.vocab",
    f"{vocab} is below the tokenizer's {task.tokenizer.vocab_size}",
  )
  budgets = config.eval.budgets
  require(
    not budgets or task.retry_token is not None,
    "eval.budgets",
    f"task {task.name} has no retry token to force",
  )
  require(
    not config.controls or task.give_up_token is not None, "controls", f"task {task.name} cannot give up"
  )
  require(config.eval.top_k <= vocab, "eval.top_k", f"{config.eval.top_k} of only {vocab} tokens")
  mesh = make_mesh(config.mesh, devices)
  shards = batch_rows(mesh)
  chunk = config.rl.prompts // config.rl.chunks
  rows = {
    "rl.prompts": config.rl.prompts,
    "rl.prompts / rl.chunks": chunk,
    "sft.rows": config.sft.rows,
    "eval.batch": config.eval.batch,
  }
  for field, count in rows.items():
    require(
      count % shards == 0, field, f"{count} does not divide over the mesh's {shards} shards of the batch"
    )
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab=vocab))
  for name, axis in (("kv_heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"), ("width", "fsdp")):
    size, parts = vars(config.model)[name], mesh.shape[axis]
    require(size % parts == 0, f"model.{name}", f"{size} does not divide over mesh.{axis}={parts}")
  return Setup(config, task, Decoder(config.model), mesh)


def check_problems(setup: Setup) -> None:
  """Raises ConfigError where a problem that a whole run comes to is missing, or too long."""
  config, task = setup.config, setup.task
  if any(config.eval.every):
    held_out(setup, config.eval.problems, "eval.problems")
  tested = held_out(setup, config.eval.final_problems, "eval.final_problems")
  few, have = config.rl.problems, len(task.train)
  require(
    few is None or not task.shares, "rl.problems", "cannot act in a mixture, whose sources come by weight"
  )
  require(few is None or few <= have, "rl.problems", f"{few} of only {have} training problems")
  learns = have > 0 or not config.rl.steps
  require(
    learns, "task.held_out", f"all problems of {task.name} are held out, and rl.steps={config.rl.steps}"
  )
  most = config.rl.prompts * (1 + config.rl.refill)
  fresh = config.rl.refill == 0 or most <= have
  require(fresh, "rl.refill", f"a step may come to {most} problems, there are only {have}")
  shifted = (problem for problems in task.shifted.values() for problem in problems)
  for problem in (*(task.train if config.rl.steps else ()), *tested, *shifted):
    check_prompt(task.tokenizer.encode(task.ask(problem)), problem.id, config.rl.max_prompt)
  if config.sft.steps:
    check_demonstrations(task, config.sft.length)


def same_data(setup: Setup, folder: pathlib.Path) -> None:
  """Raises ConfigError where the run in `folder` learned from other problems or token ids than the task has now."""
  config, tokenizer = folder / "config.json", folder / "tokenizer.model"
  known = read_json(config).get(META, {}).get("data_hash") == setup.task.data_hash
  require(known, str(config), f"has the data_hash of other problems than task {setup.task.name} has now")
  proto = tokenizer.read_bytes() if tokenizer.is_file() else b""
  require(proto == setup.task.tokenizer.proto, str(tokenizer), "is not the tokenizer that the task has now")


def params_like(setup: Setup, step: int) -> Any:
  """Shapes and shardings of the parameters after `step`, to restore onto: from the RL stage on, with the critic's."""
  add_critic = ADD_CRITIC[setup.config.rl.critic.kind if step > setup.config.sft.steps else "none"]
  boxed = jax.eval_shape(lambda k: add_critic(init_params(setup.model, k)), jax.random.key(0))
  return _placed(jax.eval_shape(nn.meta.unbox, boxed), param_shardings(boxed, setup.mesh))


def state_like(setup: Setup, stage: Stage) -> TrainState:
  """Shapes and shardings of the states of `stage`, to make the first one on, or to restore one onto."""
  boxed = jax.eval_shape(lambda k: init_params(setup.model, k), jax.random.key(0))
  params = param_shardings(jax.eval_shape(stage.add_critic, boxed), setup.mesh)
  state = jax.eval_shape(functools.partial(first_state, stage), boxed)
  return _placed(state, state_shardings(state, params, setup.mesh))


def _seed_params(model: Decoder, key: jax.Array) -> Any:
  return nn.meta.unbox(init_params(model, key))


def seed_params(setup: Setup) -> Any:
  """The parameters that a run begins with."""
  lies = jax.tree.map(lambda a: a.sharding, params_like(setup, 0))
  make = jax.jit(_seed_params, static_argnums=0, out_shardings=lies)
  return make(setup.model, stream_key(setup.config.seed, "init", 0))


def fresh_state(setup: Setup, stage: Stage, params: Any | None) -> TrainState:
  """The state a stage begins with, from the parameters before it, which are donated, or from the seed."""
  params = seed_params(setup) if params is None else params
  lies = jax.tree.map(lambda a: a.sharding, state_like(setup, stage))
  return jax.jit(first_state, static_argnums=0, donate_argnums=1, out_shardings=lies)(stage, params)


def kept_aside(setup: Setup, stage: Stage) -> bool:
  """Whether diagnostics measure to first parameters that the states of `stage` do not hold."""
  return setup.config.diagnostics.every > 0 and first_params(state_like(setup, stage), stage.update) is None


def _placed(shapes: Any, shardings: Any) -> Any:
  place = lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
  return jax.tree.map(place, shapes, shardings)


def batch_of(setup: Setup, problems: Sequence[Problem], before: Sequence[Problem] | None = None) -> Any:
  """A PromptBatch of `problems`, sharded by row.

  `before`: problems of the chunks drawn before it with the same key; None where a rollout has one chunk alone.
  """
  encode = setup.task.tokenizer.encode
  prompts = [encode(setup.task.ask(p)) for p in problems]
  keys, names = [setup.task.hash_of(p) for p in problems], [p.id for p in problems]
  batch = prompt_batch(prompts, keys, names, setup.config.rl.max_prompt)
  if before is not None:
    came = collections.Counter(setup.task.hash_of(p) for p in before)
    earlier: Any = np.asarray([came[key] for key in keys], np.int32)
    batch = dataclasses.replace(batch, earlier=earlier)
  return put_rows(batch, setup.mesh)


def held_out(setup: Setup, count: int, field: str) -> Sequence[Problem]:
  """The first `count` held-out problems. Raises ConfigError where there are fewer."""
  have = len(setup.task.held_out)
  require(count <= have, field, f"{count} of only {have} held-out problems")
  return setup.task.held_out[:count]


def in_mesh(setup: Setup) -> Any:
  """The context in which logical axis names mean mesh axes."""
  stack = contextlib.ExitStack()
  stack.enter_context(jax.set_mesh(setup.mesh))
  stack.enter_context(nn.logical_axis_rules(RULES))
  return stack


def load_run(run: str, overrides: EvalConfig | None = None) -> tuple[Setup, Any, int]:
  """(setup, the policy's parameters, step) of a run's newest checkpoint. Raises ConfigError naming the folder without one."""
  config = read_run_config(run)
  setup = prepare(dataclasses.replace(config, eval=overrides or config.eval))
  folder = pathlib.Path(run) / "checkpoints"
  step = latest_step(folder)
  require(step is not None, str(folder), "holds no checkpoint")
  same_data(setup, pathlib.Path(run))
  assert step is not None
  return setup, policy_params(restore_params(folder, step, params_like(setup, step))), step
