"""The whole run, top to bottom: cold start, reinforcement learning, evaluation, controls, summary and report.

Every step is a function of the state and the step's number: problems, demonstrations and noise are drawn from the
seed and a cursor, so that a run that was stopped goes on bitwise. Steps count over both stages.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich

from o1jax import evaluate as ev
from o1jax.config import TrainConfig, require
from o1jax.parallel.hosts import Preemption
from o1jax.parallel.sharding import put_rows
from o1jax.io.checkpoint import Checkpoints, check_params, latest_step, read_cursor, restore_params
from o1jax.io.log import RunLog, environment, progress, write_json
from o1jax.io.report import results_table, write_report
from o1jax.io.run_config import check_same, config_to_dict, located, read_run_config, resolved_paths
from o1jax.io.run_folder import locked, new_run
from o1jax.loop import Run, Stopped
from o1jax.rl.batch import pack, response_width, trim
from o1jax.rl.refill import refill_stats
from o1jax.rl.sample import stream_key
from o1jax.rl.stages import (
  Progress,
  Spent,
  Stage,
  rl_stage,
  sft_stage,
  step_flops,
  strengths_at,
  without_strengths,
)
from o1jax.rl.step import improve, look_back
from o1jax.rl.tally import of_chosen, tally
from o1jax.rl.update import first_params, learn
from o1jax.scaling import compute, stats
from o1jax.tasks.stream import Use, curriculum_metrics, generator, problems_from, remembered
from o1jax.types import Experience, TrainState, resolve_stats

COLD = "cold_start"  # where the cold start's last state lies
SUMMARY = "summary.json"  # what a run comes to

# One step of each stage


def demonstrations(setup: ev.Setup, cursor: int) -> tuple[Experience, int, list[int]]:
  """(packed rows to imitate, the cursor behind them, tokens of each demonstration)."""
  cfg, task = setup.config.sft, setup.task
  room, texts = cfg.rows * cfg.length, []
  assert task.demonstrate is not None  # there are demonstrations
  came = problems_from(task.demonstrations(setup.config.seed), cursor)
  for at, problem in enumerate(came, start=cursor):
    if room <= 0:  # enough to fill the rows; what finds no room is the next step's
      break
    response = task.demonstrate(problem, generator(setup.config.seed, Use.DEMONSTRATION, at))
    prompt = task.tokenizer.encode(task.question(problem))
    texts.append((prompt, [*task.tokenizer.encode(response), task.tokenizer.eos]))
    room -= sum(map(len, texts[-1]))
  experience, packed = pack(texts, cfg.rows, cfg.length)
  return experience, cursor + packed, [len(p) + len(r) for p, r in texts[:packed]]


def sft_step(setup: ev.Setup, stage: Stage, state: TrainState, step: int, where: Progress) -> tuple:
  """(state, metrics, what it spent) after imitating one packed batch."""
  experience, cursor, lengths = demonstrations(setup, where.cursor)
  key = stream_key(setup.config.seed, "sft", step)
  strengths = strengths_at(setup.config, stage, step)
  batch = put_rows(experience, setup.mesh)
  state, told = learn(state, batch, key, strengths, model=setup.model, tx=stage.tx, cfg=stage.update)
  actions = int(np.asarray(experience.is_action).sum())
  flops = compute.sft_flops(
    setup.config.model, setup.config.sft.rows, setup.config.sft.length, lengths, actions
  )
  return (
    state,
    resolve_stats(told),
    Spent(compute.Ledger(update=flops), sum(lengths), cursor),
  )


def rl_step(
  setup: ev.Setup, stage: Stage, state: TrainState, step: int, where: Progress, *, begun: Any
) -> tuple:
  """(state, metrics, what it spent, rows for rollouts.jsonl) after one rollout and its update.

  `begun`: the policy the stage began with, to which diagnostics measure; None where the state holds it, or none come.
  """
  cfg, task, model = setup.config.rl, setup.task, setup.model
  tallied = lambda some: tally(some.rollout, some.reward(), some.graded.correct.reshape(-1))
  strengths, compiled = strengths_at(setup.config, stage, step), without_strengths(cfg)
  as_learned = lambda rollout: trim(
    rollout, cfg.max_prompt + response_width(cfg, int(rollout.is_action.sum(1).max()))
  )
  meanwhile = lambda rollout: look_back(
    state, as_learned(rollout), strengths, model=model, stage=stage, cfg=compiled
  )
  drawn = ev.step_groups(setup, state.params, step, where.cursor, where.seen, strengths, meanwhile)
  rollout, graded = drawn.groups
  began = time.perf_counter()
  learned = ev.sizes_of(setup, drawn.groups)
  reward = put_rows(drawn.groups.reward(), setup.mesh)
  flops = step_flops(setup.config, stage, learned, drawn.draws, drawn.greedy)
  key = stream_key(setup.config.seed, "minibatch", step)
  seen = (as_learned(rollout), reward, drawn.greedy_reward, key, strengths)
  figures: dict[str, float] = {}
  every = setup.config.diagnostics.every
  if every and (step - 1 - stage.first) % every == 0:
    origin = first_params(state, stage.update) if begun is None else begun
    figures, took = ev.diagnosed(setup, stage, state, step, origin, learned, seen)
    del origin  # else it would outlive the state that it may be a part of
    flops += took
  told, first_draw = tallied(drawn.first), drawn.first.graded
  rounds = len(drawn.draws) - 1
  if cfg.refill:
    told |= {**of_chosen(tallied(drawn.groups)), **refill_stats(reward, rounds, cfg.advantage.floor)}
  state, improved = improve(state, *seen, model=model, stage=stage, cfg=compiled, before=drawn.before)
  metrics = {**resolve_stats({**improved, **told}), **figures}
  metrics |= ev.text_metrics([text for row in first_draw.texts for text in row])
  metrics |= ev.rewards_by_source(task, first_draw, metrics.pop("rewards/task/mean", None))
  metrics |= {"time/generate": drawn.clock.generate, "time/verify": drawn.clock.verify}
  metrics["time/update"] = time.perf_counter() - began
  processed = cfg.samples * sum(learned.prompts) + int(graded.length.sum())
  memory = where.seen
  for some in drawn.graded:
    memory = remembered(memory, some.problems, some.correct, cfg.curriculum)
  passed_over = drawn.cursor - where.cursor - cfg.prompts * (1 + rounds)
  stream = task.stream(setup.config.seed, cfg.problems)
  metrics |= curriculum_metrics(memory, passed_over, stream, cfg.curriculum)
  unjudged = int(np.isnan(first_draw.reward).sum())
  metrics |= {"completions/unjudged": float(unjudged)} if unjudged else {}
  spent = Spent(flops, processed, drawn.cursor, memory)
  return state, metrics, spent, ev.rollout_rows(task, graded)


# The run


def train(config: TrainConfig, *, resume: bool) -> int:
  """Runs `config` into `config.out/config.name`; returns the exit code. Raises ConfigError where it cannot start."""
  began = time.perf_counter()
  folder = pathlib.Path(config.out).expanduser() / config.name
  setup = ev.prepare(located(config, folder) if resume else config)
  check_reward(setup)
  ev.check_problems(setup)
  with locked(folder), contextlib.nullcontext() if resume else new_run(folder):
    latest = continued(setup, folder) if resume else None
    if not resume:
      write_head(setup, folder)
    with (
      ev.in_mesh(setup), Preemption() as preemption, RunLog(folder, resume_step=latest, wandb=config.log.wandb) as log,
      Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
    ):  # fmt: skip
      run = Run(setup, log, checkpoints, preemption, Progress())
      try:
        summary = stages(run, folder, latest or 0, began)
        summary["costs"] = run.where.with_costs(setup.task.spent(), run.counted).costs
      except Stopped as stop:
        rich.print(f"[yellow]{stop}[/]")
        return stop.code
    write_json(folder / SUMMARY, summary)
    rich.print(results_table(summary))
    print(f"report: {write_report(str(folder))}")
  return 0


def check_reward(setup: ev.Setup) -> None:
  """Raises ConfigError where a learned reward is asked of this loop, which verifies on the host."""
  verified = setup.config.rl.proxy.kind == "none"
  why = "is for sweeps of a task with a device verifier: steps that the host verifies pay the verifier's reward alone"
  require(verified, "rl.proxy.kind", why)


def write_head(setup: ev.Setup, folder: pathlib.Path) -> None:
  """Writes what tells a run from any other folder, before there is anything else in it."""
  setup.task.tokenizer.save(folder / "tokenizer.model")
  meta = {**environment(), "data_hash": setup.task.data_hash, "paths": resolved_paths(setup.config)}
  write_json(folder / "config.json", {**config_to_dict(setup.config), "meta": meta})


def continued(setup: ev.Setup, folder: pathlib.Path) -> int:
  """The step of the checkpoint to go on from, 0 without one. Raises ConfigError where it is another run's."""
  check_same(setup.config, located(read_run_config(str(folder)), folder), folder)
  ev.same_data(setup, folder)
  latest = latest_step(folder / "checkpoints")
  if latest is not None:
    check_params(folder / "checkpoints", latest, ev.params_like(setup, latest))
  return latest or 0


def stages(run: Run, folder: pathlib.Path, latest: int, began: float) -> dict[str, Any]:
  """Both stages from checkpoint `latest` (0: from the start), then the evaluations; returns the summary.

  A state is handed over and never kept, so that there is no second one beside it.
  """
  setup, config, first = run.setup, run.setup.config, run.setup.config.sft.steps
  warm, rl, before = sft_stage(config, first), rl_stage(config), run.where
  if latest > first:
    before = Progress.from_json(read_cursor(folder / COLD, first)) if first else before
    reads = functools.partial(
      rl_step, begun=rl_begins_with(setup, folder) if ev.kept_aside(setup, rl) else None
    )
    run.loop(rl, restored(run, rl, latest), config.rl.steps, reads)
    return summarise(run, folder, before, began)
  run.loop(
    warm, restored(run, warm, latest) if latest else ev.fresh_state(setup, warm, None), first, sft_step
  )
  if first:
    with Checkpoints(
      folder / COLD, keep=1
    ) as cold:  # done before any of the RL stage, whose resume needs this one
      if cold.latest() is None:
        cold.save(run.where.step, run.state, run.where.to_json())
  before, params = run.where, run.give_up().params
  run.where = dataclasses.replace(before, cursor=0)  # the RL stage has a stream of its own
  reads = functools.partial(
    rl_step, begun=jax.tree.map(jnp.copy, params) if ev.kept_aside(setup, rl) else None
  )
  run.loop(rl, ev.fresh_state(setup, rl, params), config.rl.steps, reads)
  return summarise(run, folder, before, began)


def restored(run: Run, stage: Stage, step: int) -> TrainState:
  """The state of checkpoint `step`; the run goes on from there."""
  state, saved = run.checkpoints.restore(step, ev.state_like(run.setup, stage), finite=True)
  run.where = Progress.from_json(saved)
  return state


def rl_begins_with(setup: ev.Setup, folder: pathlib.Path) -> Any:
  """The parameters that RL begins with: the cold start's, read back, or the seed's."""
  step = setup.config.sft.steps
  return restore_params(folder / COLD, step, ev.params_like(setup, step)) if step else ev.seed_params(setup)


def summarise(run: Run, folder: pathlib.Path, before: Progress, began: float) -> dict:
  """The final evaluations and controls, as summary.json holds them; `before` is where the cold start ended.

  Written without the controls before they begin, which train once more. Seconds of a stage count all processes of a
  resumed run, `total` the last one alone.
  """
  setup, cfg, step = run.setup, run.setup.config.eval, run.where.step
  seconds = {name: run.where.seconds.get(stage, 0.0) for name, stage in (("cold_start", "sft"), ("rl", "rl"))}
  problems = ev.held_out(setup, cfg.final_problems, "eval.final_problems")
  started = time.perf_counter()
  final, final_graded = ev.evaluate(setup, run.give_up().params, problems, cfg, step)
  spent = lambda where: {"train_flops": where.flops.useful, "seconds": sum(where.seconds.values())}
  summary: dict[str, Any] = {"final": final | spent(run.where), "paired": {}, "controls": {}}
  run.leave_if_asked()

  def compare(name: str, graded: ev.Graded) -> None:
    rng = np.random.default_rng(0)
    gain = stats.paired_difference(final_graded.correct.mean(1), graded.correct.mean(1), rng, cfg.bootstrap)
    summary["paired"][f"final_minus_{name}"] = gain

  def told() -> dict[str, Any]:
    seconds["evaluation"] = time.perf_counter() - started
    seconds["total"] = time.perf_counter() - began
    flops = {"train_flops": run.where.flops.useful, "cold_start_flops": before.flops.useful}
    return {**summary, **flops, "seconds": seconds, "steps": step, "commit": environment()["git"]}

  if not (setup.config.sft.steps and setup.config.rl.steps):
    return told()
  params = rl_begins_with(setup, folder)
  cold, graded = ev.evaluate(setup, params, problems, cfg, step)
  summary["cold_start"] = cold | spent(before)
  compare("cold_start", graded)
  run.leave_if_asked()
  if setup.config.controls:
    write_json(folder / SUMMARY, told())
    few = ev.control(cfg)
    graded = ev.sample_and_grade(setup, params, problems, few, step, ev.no_give_up(setup.task))
    summary["controls"]["no_give_up"] = ev.figures(setup, graded)
    compare("no_give_up", graded)
    control = time.perf_counter()
    params, steps = more_sft(run, params, run.where.flops.useful, before.flops.useful)
    seconds["control"] = time.perf_counter() - control
    started += seconds["control"]
    graded = ev.sample_and_grade(setup, params, problems, few, step)
    summary["controls"]["more_sft"] = {**ev.figures(setup, graded), "steps": steps}
    compare("more_sft", graded)
  return told()


def more_sft(run: Run, params: Any, whole: float, cold: float) -> tuple[Any, int]:
  """Spends what RL took, `whole` - `cold` useful FLOPs, on more cold start, on demonstrations not yet seen.

  `params` are donated. The learning rate begins anew: warm-up, then its decay over these steps. Nothing is logged or saved.
  """
  config = run.setup.config
  steps = max(1, round((whole - cold) / cold * config.sft.steps))
  stage = sft_stage(config, steps)
  state = ev.fresh_state(run.setup, stage, params)
  # Beyond the cold start's demonstrations.
  where = Progress(cursor=config.sft.steps * config.sft.rows * config.sft.length)
  with progress(steps, "control: more cold start", config.log.progress) as tell:
    for step in range(1, steps + 1):
      state, metrics, spent = sft_step(run.setup, stage, state, step, where)
      where = dataclasses.replace(where, cursor=spent.cursor)
      tell(step, {"loss": metrics["nll"]})
      run.leave_if_asked()
  return state.params, steps
