"""The placement of a group's members: over devices, in vmaps or one after the other, measured at the start.

candidates -> each compiled, cut down to what fits into memory, timed over one chunk -> the fastest -> its
divergence

The chunk that was timed counts: the chosen population goes on behind it. What other candidates took is lost,
so that a sweep of few chunks tries one layout alone: on a CPU members one after the other, on an
accelerator, which a tiny model leaves idle, a vmap.
"""

import dataclasses
import os
import pathlib
from typing import NamedTuple, Sequence

import jax
import numpy as np
import rich

from o1jax.config import SweepConfig, require
from o1jax.sweep.members import RLStart
from o1jax.sweep.population import ChunkOutputs, MeasuredChunk, MemberGroup, Placement, Population

MEMORY_SHARE = 0.8  # of the free memory that members may fill
TRIED_SHARE = 0.1  # of all steps that a chunk may be, or another candidate costs more than it can save
WITHIN = 1e-5  # what a vmapped member may differ from its lone run, absolutely below 1 and relatively above


def free_bytes() -> float:
  """Free memory of a device, of the machine where devices are CPUs."""
  stats = jax.devices()[0].memory_stats()
  if stats is not None and "bytes_limit" in stats:
    return float(stats["bytes_limit"] - stats["bytes_in_use"])
  known = pathlib.Path("/proc/meminfo")  # where pages that only cache files count as free
  lines = known.read_text().splitlines() if known.is_file() else []
  for line in lines:
    if line.startswith("MemAvailable:"):
      return float(line.split()[1]) * 1024
  return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def members_that_fit(population: Population, share: float) -> int:
  """How many members `share` of the free memory holds, by the compiled program's own analysis."""
  cpus = jax.devices()[0].platform == "cpu"  # which share one memory
  room = share * free_bytes() / (population.layout.devices if cpus else 1)
  return (
    max(int((room - population.shared_bytes()) / population.member_bytes()), 0) * population.layout.devices
  )


def first_chunk(population: Population) -> ChunkOutputs:
  """The first chunk, run to be measured. Where the population is then run, it goes on behind it."""
  states = jax.block_until_ready(population.begin(population.first_params()))
  states, outputs = population.advance(states, 0, population.first_cursors)
  population.measured = MeasuredChunk(population.rows, states, outputs)
  return outputs


class Trial(NamedTuple):
  """A layout, compiled and measured."""

  population: Population
  fits: int  # members in memory
  chunk: ChunkOutputs  # the first, of the members that lie side by side


def candidates(config: SweepConfig, count: int, before: Sequence[Placement]) -> list[Placement]:
  """The layouts to choose from for `count` members; `before`: those that earlier groups have chosen.

  Raises ConfigError where `vmapped` does not divide a device's members.
  """
  devices = min(config.devices or jax.device_count(), count)
  each = -(-count // devices)
  divides = not config.vmapped or each % config.vmapped == 0
  require(divides, "vmapped", f"{config.vmapped} does not divide the {each} members of a device")
  mapped, vmapped = Placement(devices, 1, count), Placement(devices, each, count)
  if config.vmapped:
    return [Placement(devices, config.vmapped, count)]
  if before:
    return [mapped if before[0].vmapped == 1 else vmapped]
  if each == 1:
    return [mapped]
  return [mapped, vmapped] if jax.default_backend() == "cpu" else [vmapped, mapped]


def choose(
  group: MemberGroup,
  layouts: Sequence[Placement],
  chunk: int,
  start: RLStart,
  *,
  exact: bool,
) -> Population:
  """The group compiled for the candidate that a short measurement finds fastest; prints what it finds.

  exact: whether a vmap must hold as many members as was asked for, and not as many as fit.
  """
  count, steps = len(group.members), group.steps
  trials: list[Trial] = []
  for layout in layouts:
    if trials and chunk > TRIED_SHARE * steps * -(-count // trials[0].population.layout.size):
      break
    trials.append(_trial(group, layout, chunk, start, exact))
  for trial in trials:
    size = trial.population.layout.size
    measured = f"{trial.chunk.seconds:.2f} s for {chunk} steps of {size} members"
    rich.print(f"layout: {trial.population.layout.describe()}: {measured}")
  best = min(trials, key=lambda trial: trial.chunk.seconds / trial.population.layout.size)
  layout = best.population.layout
  blocks = -(-count // layout.size)
  if layout.vmapped > 1:
    lone = next((t for t in trials if t.population.layout.vmapped == 1), None) or _lone(best.population)
    layout = layout._replace(differs=divergence(best, lone, group.first))
    best.population.layout = layout
    rich.print(f"vmapped members {layout.differs}")
  each = f"{best.population.member_bytes() / 1e6:.1f} MB a member, {best.fits:,} fit into memory"
  parts = f"{blocks} blocks of {layout.size} one after the other; " if blocks > 1 else ""
  expected = best.chunk.seconds * blocks * steps / chunk
  rich.print(f"chosen: {layout.describe()}; {each}; {parts}about {expected:.0f} s of steps")
  return best.population


def _trial(group: MemberGroup, layout: Placement, chunk: int, start: RLStart, exact: bool) -> Trial:
  """The group, or as much of it as fits into memory, compiled and measured for a layout."""
  population = Population(group, layout, chunk, start)
  fits = members_that_fit(population, MEMORY_SHARE)
  require(fits > 0, "rl", "not one member fits into memory")
  if fits < layout.size:
    devices = min(layout.devices, fits)
    room = fits // devices
    why = f"{layout.vmapped}: only {room} members fit into a device's memory"
    require(not exact or layout.vmapped <= room, "vmapped", why)
    vmapped = min(layout.vmapped, room)
    layout = Placement(devices, vmapped, devices * (room // vmapped * vmapped))
    part = dataclasses.replace(group, members=group.members[: layout.size])
    population = Population(part, layout, chunk, start)
  return Trial(population, fits, first_chunk(population))


def _lone(population: Population) -> Trial:
  """The population's first member alone."""
  one = dataclasses.replace(population.group, members=population.group.members[:1])
  alone = Population(one, Placement(1, 1, 1), population.chunk, population.start)
  return Trial(alone, 1, first_chunk(alone))


def divergence(vmapped: Trial, lone: Trial, first: int) -> str:
  """How far members are from their lone runs over the first chunk; `first`: steps before the stage."""
  both = min(len(vmapped.population.group.members), len(lone.population.group.members))
  gaps = {
    name: _gap(vmapped.chunk.metrics[name][:both], values[:both])
    for name, values in lone.chunk.metrics.items()
  }
  largest = max(gaps, key=lambda name: gaps[name].max())
  steps = np.stack(list(gaps.values())).max(0)  # f[N]
  beyond = np.flatnonzero(steps > WITHIN)
  since = (
    f"beyond {WITHIN:.0e} from step {first + beyond[0] + 1} on" if len(beyond) else f"within {WITHIN:.0e}"
  )
  gap = f"differ from lone runs by up to {gaps[largest].max():.1e} ({largest})"
  return f"{gap} over the first {len(steps)} steps, {since}"


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """f[N] largest difference of f[M, N] over the members; what is no number in both differs by nothing."""
  same = (a == b) | (np.isnan(a) & np.isnan(b))
  with np.errstate(invalid="ignore"):
    gap = np.abs(a - b) / np.maximum(1.0, np.abs(b))
  return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap)).max(0)
