"""The loop over a group's chunks of fused steps, with logs and checkpoints; then the final evaluation."""

import contextlib
import dataclasses
import pathlib
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from o1jax.evaluate.heldout import HeldoutResult, heldout_figures, heldout_problems, measured
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import CLOCK_METRICS, RunLog, progress, read_metrics
from o1jax.parallel.hosts import EXIT_PREEMPTED, Preemption
from o1jax.rl.dynamic_sampling import SampleCounts
from o1jax.rl.flops import StepSizes, diagnosis_flops, step_sizes
from o1jax.rollout.record import Progress, StepRecord, record
from o1jax.sweep.folder import begin_member, write_row
from o1jax.sweep.members import Member
from o1jax.sweep.population import ChunkOutputs, MemberGroup, Population, member_runtime
from o1jax.sweep.reward_model import best_of_rows
from o1jax.train import Stopped

TAIL = 0.25  # share of the steps, the last ones, over which `last/<metric>` is a mean


class GroupFolder(NamedTuple):
  """Where a group of members writes."""

  sweep: pathlib.Path
  checkpoints: str  # name of the folder of the group's checkpoints


@dataclasses.dataclass
class GroupProgress:
  """How far the members of a group are."""

  done: int  # finished steps of the stage
  members: list[Progress]
  bad: list[int | None]  # step of the run at which a loss or gradient was not finite

  @property
  def cursors(self) -> list[int]:
    """Position of each member in its stream of problems."""
    return [member.cursor for member in self.members]

  def to_json(self) -> dict[str, Any]:
    return {"done": self.done, "where": [p.to_json() for p in self.members], "bad": list(self.bad)}

  @staticmethod
  def from_json(data: Mapping[str, Any]) -> "GroupProgress":
    return GroupProgress(data["done"], [Progress.from_json(p) for p in data["where"]], list(data["bad"]))


def run_group(population: Population, folder: GroupFolder, preemption: Preemption) -> list[dict[str, Any]]:
  """Runs a group to its end, from its newest checkpoint where it has one; returns its rows of results.json.

  Raises Stopped where a signal asks for it, with everything saved.
  """
  group = population.group
  first_params = population.first_params()
  states = population.begin(first_params)
  begun = [population.start.cold_start(member).progress for member in group.members]
  at = GroupProgress(0, begun, [None] * len(group.members))
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(Checkpoints(folder.sweep / "checkpoints" / folder.checkpoints, keep=1))
    latest = saved.latest()
    if latest is not None:
      states, cursor = saved.restore(latest, states)
      at = GroupProgress.from_json(cursor)
    logs = [stack.enter_context(_log(group, member, folder.sweep, latest)) for member in group.members]
    config = group.runtime.config
    show = stack.enter_context(
      progress(group.steps, folder.checkpoints, config.log.progress, every=population.chunk)
    )
    while at.done < group.steps:
      due = config.diagnostics.every and at.done % config.diagnostics.every == 0
      figures = _diagnosed(population, states, first_params, at) if due else {}
      states, chunk = population.advance(states, at.done, at.cursors, at.bad)
      _write(population, at, chunk, figures, logs)
      show(at.done, _shown(chunk, at))
      if (
        preemption.requested or at.done == group.steps or at.done % config.checkpoint.every < population.chunk
      ):
        saved.save(group.first + at.done, states, at.to_json())
      if preemption.requested:
        saved.wait()
        line = f"saved step {group.first + at.done} of {len(group.members)} members; go on with --resume"
        raise Stopped(EXIT_PREEMPTED, f"{preemption.requested}: {line}")
  return _finish(population, states, at, folder)


def _log(group: MemberGroup, member: Member, folder: pathlib.Path, latest: int | None) -> RunLog:
  """A member's log, gone on with or begun anew: what a killed sweep logged behind no checkpoint is made
  again.
  """
  own = folder / member.name
  begin_member(member_runtime(group, member), own)
  return RunLog(own, resume_step=0 if latest is None else latest)


def _shown(chunk: ChunkOutputs, at: GroupProgress) -> dict[str, float]:
  """Means of the last step over the members that still learn."""
  alive = [j for j, bad in enumerate(at.bad) if bad is None]
  names = ("reward", "loss", "accuracy") if alive else ()
  means = {name: chunk.metrics[name][alive, -1].mean() for name in names}
  return {name: float(mean) for name, mean in means.items() if mean is not np.ma.masked}


def _diagnosed(
  population: Population, states: Any, first_params: Any, at: GroupProgress
) -> dict[int, dict[str, float]]:
  """Figures of each member that still learns, by its place, as it is now; their FLOPs are added to `at`."""
  diagnosis = population.diagnose(states, first_params, at.done, at.cursors)
  group, figures = population.group, {}
  config = group.runtime.config
  for j, member in enumerate(group.members):
    if at.bad[j] is not None:
      continue
    result = _heldout(
      population, diagnosis.heldout, j, config.diagnostics.problems, config.diagnostics.samples
    )
    examined = measured({name: values[j] for name, values in diagnosis.figures.items()})
    figures[j] = {**examined, **result.figures}
    sizes = _sizes(population, member, at.cursors[j], _at(diagnosis.counts, j))
    flops = diagnosis_flops(config, group.learner, sizes.learned, config.rl.max_tokens, sizes.all_draws)
    at.members[j] = dataclasses.replace(at.members[j], flops=at.members[j].flops + flops)
  return figures


def _at(tree: Any, *index: int) -> Any:
  return jax.tree.map(lambda a: a[index], tree)


def _sizes(population: Population, member: Member, cursor: int, counts: SampleCounts) -> StepSizes:
  """Sizes of the rollouts of a member's step, whose first problem stands at `cursor` of its stream."""
  cfg = population.group.runtime.config.rl
  order = population.order(member, cursor, (1 + int(counts.rounds)) * cfg.prompts)
  return step_sizes(counts, population.prompt_lengths[order], cfg.samples)


def _heldout(
  population: Population, responses: Mapping[str, Any], j: int, count: int, samples: int
) -> HeldoutResult:
  """The held-out evaluation of member j; rows that fill up a batch are left out."""
  task = population.group.runtime.task
  stops, decode = set(task.stop_tokens), task.tokenizer.decode
  figures: dict[str, float] = {}
  by_problem: dict[str, list[float]] = {}
  for kind, problems in heldout_problems(task, count).items():
    correct, parsed, tokens, valid = (a[j][: len(problems) * samples] for a in responses[kind])
    texts = [decode([t for t in row[keep] if t not in stops]) for row, keep in zip(tokens, valid)]
    figures |= heldout_figures(task, kind, problems, texts, correct, parsed, valid.sum(1))
    by_problem[kind] = correct.reshape(-1, samples).mean(1).tolist()
  return HeldoutResult(figures, by_problem)


def _write(
  population: Population,
  at: GroupProgress,
  chunk: ChunkOutputs,
  figures: Mapping[int, Mapping[str, float]],
  logs: Sequence[RunLog],
) -> None:
  """Logs a chunk's steps of each member up to its first bad one, and moves `at` on."""
  group = population.group
  config, task, each = (
    group.runtime.config,
    group.runtime.task,
    chunk.seconds / population.chunk / len(group.members),
  )
  for j, (member, log) in enumerate(zip(group.members, logs)):
    if at.bad[j] is not None:
      continue
    for n in range(min(int(chunk.first_bad[j]) + 1, population.chunk)):
      step, before = group.first + at.done + n + 1, at.members[j]
      sizes = _sizes(population, member, before.cursor, _at(chunk.counts, j, n))
      resolved = {name: values[j, n] for name, values in chunk.metrics.items()}
      resolved = {name: float(value) for name, value in resolved.items() if value is not np.ma.masked}
      cursor = before.cursor + config.rl.prompts * len(sizes.draws)
      metrics, usage = record(config, task, group.learner, before, StepRecord(resolved, sizes, cursor))
      at.members[j] = now = before.after(step, "rl", usage, before.seconds.get("rl", 0.0) + each)
      metrics |= {"step_time": each, "num_tokens": float(now.tokens), **now.flops.metrics()}
      log.metrics(step, "rl", {**metrics, **(figures.get(j, {}) if n == 0 else {})})
    if chunk.first_bad[j] < population.chunk:
      at.bad[j] = at.members[j].step
  at.done += population.chunk


def _finish(
  population: Population, states: Any, at: GroupProgress, folder: GroupFolder
) -> list[dict[str, Any]]:
  """The final figures and evaluation, as rows of results.json."""
  group = population.group
  cfg, rows = group.runtime.config.eval, []
  diagnosed = group.runtime.config.diagnostics.every > 0
  figures = _diagnosed(population, states, population.first_params(), at) if diagnosed else {}
  responses = population.final(states, at.done)
  best_of = best_of_rows(group, population.start)
  for j, member in enumerate(group.members):
    result = _heldout(population, responses, j, cfg.final_problems, cfg.samples)
    end = MemberEnd(at.members[j], at.bad[j], figures.get(j, {}), result, best_of[j])
    rows.append(write_final(folder.sweep, member, end))
  return rows


class MemberEnd(NamedTuple):
  """What is known of a member at its end."""

  progress: Progress
  bad: int | None  # step at which a loss or gradient was not finite
  diagnosis: Mapping[str, float]  # of its last state; {} where diagnostics are off
  heldout: HeldoutResult
  best_of: HeldoutResult


def write_final(sweep: pathlib.Path, member: Member, end: MemberEnd) -> dict[str, Any]:
  """Writes and returns a member's row of results.json."""
  lines = rl_lines(sweep / member.name / "metrics.jsonl")
  final = {**end.diagnosis, **end.heldout.figures, **first_values(lines), **tail_means(lines)}
  final |= {**end.best_of.figures, "train_flops": end.progress.flops.useful}
  final["num_tokens"] = float(end.progress.tokens)
  by_problem = end.heldout.by_problem | end.best_of.by_problem
  return write_row(sweep, member, {"bad_step": end.bad, "final": final, "by_problem": by_problem})


def rl_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The metrics of a member's RL steps, those of the clock left out."""
  left_out = CLOCK_METRICS | {"step", "stage"}
  keep = lambda line: {name: value for name, value in line.items() if name not in left_out}
  return [keep(line) for line in read_metrics(path) if line["stage"] == "rl"]


def first_values(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """`first/<metric>`: its value at the first step that has it; a diagnosis is there of the policy RL began
  with.
  """
  return {f"first/{n}": float(value) for line in reversed(lines) for n, value in line.items()}


def tail_means(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """`last/<metric>`: means over the last quarter of a member's RL steps, of those that have the metric.

  A mean over some completions alone (the wrong ones, those of a source) weighs each step by how many those
  were.
  """
  tail = lines[-max(int(len(lines) * TAIL), 1) :]
  names = dict.fromkeys(name for line in tail for name in line)
  means = {name: _pooled(name, [line for line in tail if name in line]) for name in names}
  return {f"last/{name}": mean for name, mean in means.items() if mean is not None}


def _pooled(name: str, lines: Sequence[Mapping[str, float]]) -> float | None:
  """Mean of a metric over lines that have it, weighed by `_share`; None where no line has any weight."""
  weights = np.asarray([_share(name, line) for line in lines])
  if not weights.sum() > 0:
    return None
  return float(np.average([line[name] for line in lines], weights=weights))


def _share(name: str, line: Mapping[str, float]) -> float:
  """What a step's mean counts for beside those of other steps: proportional to the completions that it is
  of.
  """
  if name == "correct/mean_length":
    return line["accuracy"]
  if name == "incorrect/mean_length":
    return 1.0 - line["accuracy"]
  source = name.removeprefix("rewards/").removesuffix("/mean")
  return line.get(f"prompts/{source}", 1.0)
