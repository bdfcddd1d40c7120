"""The loop over a block's chunks: diagnostics, fused steps, logs, saves; then the final tests."""

import contextlib
import dataclasses
import pathlib
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from o1jax import evaluate as ev
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import CLOCK_METRICS, RunLog, progress, read_metrics
from o1jax.loop import Stopped
from o1jax.parallel.hosts import EXIT_PREEMPTED, Preemption
from o1jax.rl.refill import Drawn
from o1jax.rl.stages import Progress, Spent, examined_passes, judge_passes, step_flops
from o1jax.scaling import flops as compute
from o1jax.sweep.cold import Cold
from o1jax.sweep.device import Block, Chunk, Fleet, member_setup
from o1jax.sweep.folder import begin_member, write_row
from o1jax.sweep.members import Member, cold_start_key
from o1jax.sweep.proxy import best_of

TAIL = 0.25  # share of the steps, the last ones, over which `last/<metric>` is a mean


class Files(NamedTuple):
  """Where a block writes."""

  folder: pathlib.Path  # of the sweep
  block: str  # name of the folder of its checkpoints


@dataclasses.dataclass
class Course:
  """Where the members of a block are."""

  done: int  # finished steps of the stage
  where: list[Progress]
  bad: list[int | None]  # step of the run at which a loss or gradient was not finite

  @property
  def cursors(self) -> list[int]:
    """Where in its stream of problems each member is."""
    return [where.cursor for where in self.where]

  def to_json(self) -> dict[str, Any]:
    return {"done": self.done, "where": [w.to_json() for w in self.where], "bad": list(self.bad)}

  @staticmethod
  def from_json(data: Mapping[str, Any]) -> "Course":
    return Course(data["done"], [Progress.from_json(w) for w in data["where"]], list(data["bad"]))


def run_block(
  fleet: Fleet, colds: Mapping[str, Cold], files: Files, preemption: Preemption
) -> list[dict[str, Any]]:
  """Runs a block to its end, from its newest checkpoint where it has one; returns its rows of results.json.

  Raises Stopped where a signal asks for it, with everything saved.
  """
  block = fleet.block
  firsts = fleet.firsts(colds)
  states = fleet.begin(firsts)
  begun = [colds[cold_start_key(member.config)].where for member in block.members]
  course = Course(0, begun, [None] * len(block.members))
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(Checkpoints(files.folder / "checkpoints" / files.block, keep=1))
    latest = saved.latest()
    if latest is not None:
      states, cursor = saved.restore(latest, states)
      course = Course.from_json(cursor)
    logs = [stack.enter_context(_log(block, member, files.folder, latest)) for member in block.members]
    shown = block.setup.config.log.progress
    tell = stack.enter_context(progress(block.steps, files.block, shown, every=fleet.chunk))
    every = block.setup.config.checkpoint.every
    while course.done < block.steps:
      figures = _diagnosed(fleet, states, firsts, course) if _is_due(fleet, course.done) else {}
      states, told = fleet.advance(states, course.done, course.cursors, course.bad)
      _write(fleet, course, told, figures, logs, told.seconds)
      tell(course.done, _shown(told, course))
      if preemption.requested or course.done == block.steps or course.done % every < fleet.chunk:
        saved.save(block.first + course.done, states, course.to_json())
      if preemption.requested:
        saved.wait()
        where = f"saved step {block.first + course.done} of {len(block.members)} members"
        raise Stopped(EXIT_PREEMPTED, f"{preemption.requested}: {where}; go on with --resume")
  return _finish(fleet, states, colds, course, files)


def _log(block: Block, member: Member, folder: pathlib.Path, latest: int | None) -> RunLog:
  """A member's log, gone on with or begun anew: what a killed sweep logged behind no checkpoint is made again."""
  own = folder / member.name
  begin_member(member_setup(block, member), own)
  return RunLog(own, resume_step=0 if latest is None else latest)


def _is_due(fleet: Fleet, done: int) -> bool:
  """Whether a diagnosis comes before the next step."""
  every = fleet.block.setup.config.diagnostics.every
  return every > 0 and done % every == 0


def _shown(told: Chunk, course: Course) -> dict[str, float]:
  """Means of the last step over the members that still learn."""
  alive = [j for j, bad in enumerate(course.bad) if bad is None]
  names = ("reward", "loss", "accuracy") if alive else ()
  means = {name: told.metrics[name][alive, -1].mean() for name in names}
  return {name: float(mean) for name, mean in means.items() if mean is not np.ma.masked}


def _diagnosed(fleet: Fleet, states: Any, firsts: Any, course: Course) -> dict[int, dict[str, float]]:
  """Figures of each member that still learns, by its place, as it is now; what they took is added to the course."""
  figures, tests, drawn = fleet.diagnose(states, firsts, course.done, course.cursors)
  cfg, out = fleet.block.setup.config.diagnostics, {}
  for j, member in enumerate(fleet.block.members):
    if course.bad[j] is not None:
      continue
    told, _ = _told_by_tests(fleet, tests, j, cfg.problems, cfg.samples)
    out[j] = {**ev.measured({name: values[j] for name, values in figures.items()}), **told}
    spent = _diagnostic_flops(fleet, _sizes(fleet, member, course.cursors[j], _of(drawn, j)))
    course.where[j] = dataclasses.replace(course.where[j], flops=course.where[j].flops + spent)
  return out


class Counts(NamedTuple):
  """Tokens of a step's rollouts."""

  learned: compute.Sizes  # of the groups that it learns from
  draws: list[compute.Sizes]  # of the first rollout and of each refill round
  greedy: compute.Sizes | None  # of remax's


def _of(tree: Any, *index: int) -> Any:
  return jax.tree.map(lambda a: a[index], tree)


def _sizes(fleet: Fleet, member: Member, cursor: int, drawn: Drawn) -> Counts:
  """What a member drew in one step, whose first problem stands at `cursor` of its stream."""
  cfg, made = fleet.block.setup.config.rl, 1 + int(drawn.rounds)
  prompts = fleet.prompt_lengths[fleet.order(member, cursor, made * cfg.prompts)]
  lengths = np.asarray(drawn.lengths).reshape(-1, cfg.samples)
  sizes = lambda rows: compute.Sizes(prompts[rows].tolist(), lengths[rows])
  draws = [sizes(np.arange(cfg.prompts) + first) for first in range(0, len(prompts), cfg.prompts)]
  learned = sizes(np.asarray(drawn.place))
  greedy = None if drawn.greedy is None else compute.Sizes(learned.prompts, np.asarray(drawn.greedy)[:, None])
  return Counts(learned, draws, greedy)


def _diagnostic_flops(fleet: Fleet, counts: Counts) -> compute.Ledger:
  """What a diagnosis of one member takes, its tests left out."""
  cfg, stage = fleet.block.setup.config, fleet.block.stage
  draws = [*counts.draws, *([] if counts.greedy is None else [counts.greedy])]
  return compute.diagnostic_flops(
    cfg.model, counts.learned, cfg.rl.max_prompt, cfg.rl.max_tokens, draws=draws,
    passes=examined_passes(stage, cfg.rl) + judge_passes(cfg.rl),
  )  # fmt: skip


def _told_by_tests(
  fleet: Fleet, tests: Mapping[str, Any], j: int, count: int, samples: int
) -> tuple[dict, dict]:
  """(figures, kind -> share of a problem's completions that are correct) of member j; rows that fill up are left out."""
  setup = fleet.block.setup
  stops, decode = set(setup.task.stop_tokens), setup.task.tokenizer.decode
  figures: dict[str, float] = {}
  by_problem: dict[str, list[float]] = {}
  for kind, problems in ev.tests_of(setup.task, count).items():
    correct, parsed, tokens, valid = (a[j][: len(problems) * samples] for a in tests[kind])
    texts = [decode([t for t in row[keep] if t not in stops]) for row, keep in zip(tokens, valid)]
    figures |= ev.test_figures(setup.task, kind, problems, texts, correct, parsed, valid.sum(1))
    by_problem[kind] = correct.reshape(-1, samples).mean(1).tolist()
  return figures, by_problem


def _write(
  fleet: Fleet,
  course: Course,
  told: Chunk,
  figures: Mapping[int, Mapping[str, float]],
  logs: Sequence[RunLog],
  seconds: float,
) -> None:
  """Logs a chunk's steps of each member up to its first bad one, and moves the course on."""
  block, each = fleet.block, seconds / fleet.chunk / len(fleet.block.members)
  for j, (member, log) in enumerate(zip(block.members, logs)):
    if course.bad[j] is not None:
      continue
    for n in range(min(int(told.first_bad[j]) + 1, fleet.chunk)):
      step, where = block.first + course.done + n + 1, course.where[j]
      spent = _spent(fleet, where.cursor, _sizes(fleet, member, where.cursor, _of(told.drawn, j, n)))
      course.where[j] = where = where.after(step, "rl", spent, where.seconds.get("rl", 0.0) + each)
      measured = {name: values[j, n] for name, values in told.metrics.items()}
      metrics = {name: float(value) for name, value in measured.items() if value is not np.ma.masked}
      metrics |= {"step_time": each, "num_tokens": float(where.tokens), **where.flops.metrics()}
      log.metrics(step, "rl", {**metrics, **(figures.get(j, {}) if n == 0 else {})})
    if told.first_bad[j] < fleet.chunk:
      course.bad[j] = course.where[j].step
  course.done += fleet.chunk


def _spent(fleet: Fleet, cursor: int, counts: Counts) -> Spent:
  """What a member's step took, whose first problem stands at `cursor`."""
  config = fleet.block.setup.config
  prompts, lengths = counts.learned
  tokens = config.rl.samples * sum(prompts) + int(lengths.sum())
  behind = cursor + config.rl.prompts * len(counts.draws)
  return Spent(step_flops(config, fleet.block.stage, *counts), tokens, behind)


def _finish(
  fleet: Fleet, states: Any, colds: Mapping[str, Cold], course: Course, files: Files
) -> list[dict[str, Any]]:
  """The final figures and tests, as rows of results.json."""
  block = fleet.block
  watched = block.setup.config.diagnostics.every > 0
  figures = _diagnosed(fleet, states, fleet.firsts(colds), course) if watched else {}
  tests, cfg = fleet.final(states, course.done), block.setup.config.eval
  judged, rows = best_of(block, colds, fleet.proxies), []
  for j, member in enumerate(block.members):
    told, by_problem = _told_by_tests(fleet, tests, j, cfg.final_problems, cfg.samples)
    lines, where = rl_lines(files.folder / member.name / "metrics.jsonl"), course.where[j]
    final = {**figures.get(j, {}), **told, **first_values(lines), **tail_means(lines), **judged[j][0]}
    final |= {"train_flops": where.flops.useful, "num_tokens": float(where.tokens)}
    found = {"bad_step": course.bad[j], "final": final, "by_problem": by_problem | judged[j][1]}
    rows.append(write_row(files.folder, member, found))
  return rows


def rl_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The metrics of a member's RL steps, those of the clock left out."""
  left_out = CLOCK_METRICS | {"step", "stage"}
  keep = lambda line: {name: value for name, value in line.items() if name not in left_out}
  return [keep(line) for line in read_metrics(path) if line["stage"] == "rl"]


def first_values(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """`first/<metric>`: its value at the first step that has it; a diagnosis is there of the policy RL began with."""
  return {f"first/{n}": float(value) for line in reversed(lines) for n, value in line.items()}


def tail_means(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """`last/<metric>`: means over the last quarter of a member's RL steps, of those that have the metric.

  A mean over some completions alone (the wrong ones, those of a source) weighs each step by how many those were.
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
  """What a step's mean counts for beside those of other steps: proportional to the completions that it is of."""
  if name == "correct/mean_length":
    return line["accuracy"]
  if name == "incorrect/mean_length":
    return 1.0 - line["accuracy"]
  source = name.removeprefix("rewards/").removesuffix("/mean")
  return line.get(f"prompts/{source}", 1.0)
