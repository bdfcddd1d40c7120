"""How the members of a group lie: over devices, in vmaps or one after the other; tried, measured and told before a sweep starts.

candidates -> each compiled, cut down to what fits into memory, timed over one chunk -> the fastest -> its divergence

The chunk that was timed counts: the chosen fleet goes on behind it. What other candidates took is lost, so that a sweep of few
chunks tries one layout alone: on a CPU members one after the other, on an accelerator, which a tiny model leaves idle, a vmap.
"""

import dataclasses
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import numpy as np
import rich

from o1jax.config import SweepConfig, require
from o1jax.rl.stages import first_state
from o1jax.sweep import device
from o1jax.sweep.cold import Cold
from o1jax.sweep.device import Block, Chunk, Fleet, Layout
from o1jax.sweep.members import cold_start_key
from o1jax.types import TrainState

MEMORY_SHARE = 0.8  # of the free memory that members may fill
TRIED_SHARE = 0.1  # of all steps that a chunk may be, or another candidate costs more than it can save
WITHIN = 1e-5  # what a vmapped member may differ from its lone run, absolutely below 1 and relatively above


class Trial(NamedTuple):
  """A layout, compiled and measured."""

  fleet: Fleet
  fits: int  # members in memory
  seconds: float  # of a chunk of the members that lie side by side
  told: Chunk  # of the first chunk


def state_like(block: Block, colds: Mapping[str, Cold]) -> TrainState:
  """Shapes of one member's state."""
  params = colds[cold_start_key(block.members[0].config)].params
  return jax.eval_shape(lambda p: first_state(block.stage, p), params)


def candidates(config: SweepConfig, count: int, before: Sequence[Layout]) -> list[Layout]:
  """The layouts to choose from for `count` members; `before`: those that earlier groups have chosen.

  Raises ConfigError where `vmapped` does not divide a device's members.
  """
  devices = min(config.devices or jax.device_count(), count)
  each = -(-count // devices)
  require(not config.vmapped or each % config.vmapped == 0, "vmapped", f"{config.vmapped} does not divide the {each} members of a device")  # fmt: skip
  mapped, whole = Layout(devices, 1, count), Layout(devices, each, count)
  if config.vmapped:
    return [Layout(devices, config.vmapped, count)]
  if before:
    return [mapped if before[0].vmapped == 1 else whole]
  if each == 1:
    return [mapped]
  return [mapped, whole] if jax.default_backend() == "cpu" else [whole, mapped]


def choose(
  block: Block,
  wanted: Sequence[Layout],
  chunk: int,
  colds: Mapping[str, Cold],
  proxies: Mapping[str, Any],
  *,
  exact: bool,
) -> Fleet:
  """The block compiled for the candidate that a short measurement finds fastest; prints what it finds.

  exact: whether a vmap must hold as many members as was asked for, and not as many as fit.
  """
  count, steps = len(block.members), block.steps
  trials: list[Trial] = []
  for layout in wanted:
    if trials and chunk > TRIED_SHARE * steps * -(-count // trials[0].fleet.layout.size):
      break
    trials.append(_trial(block, layout, chunk, colds, proxies, exact))
  for trial in trials:
    told = f"{trial.seconds:.2f} s for {chunk} steps of {trial.fleet.layout.size} members"
    rich.print(f"layout: {trial.fleet.layout.told()}: {told}")
  best = min(trials, key=lambda trial: trial.seconds / trial.fleet.layout.size)
  layout = best.fleet.layout
  blocks = -(-count // layout.size)
  if layout.vmapped > 1:
    lone = next((t for t in trials if t.fleet.layout.vmapped == 1), None) or _lone(best.fleet, colds)
    layout = layout._replace(differs=divergence(best, lone, block.first))
    best.fleet.layout = layout
    rich.print(f"vmapped members {layout.differs}")
  each = f"{best.fleet.member_bytes() / 1e6:.1f} MB a member, {best.fits:,} fit into memory"
  parts = f"{blocks} blocks of {layout.size} one after the other; " if blocks > 1 else ""
  expected = best.seconds * blocks * steps / chunk
  rich.print(f"chosen: {layout.told()}; {each}; {parts}about {expected:.0f} s of steps")
  return best.fleet


def _trial(
  block: Block,
  layout: Layout,
  chunk: int,
  colds: Mapping[str, Cold],
  proxies: Mapping[str, Any],
  exact: bool,
) -> Trial:
  """The block, or as much of it as fits into memory, compiled and measured for a layout."""
  like = state_like(block, colds)
  fleet = Fleet(block, layout, chunk, like, proxies)
  fits = device.members_that_fit(fleet, MEMORY_SHARE)
  require(fits > 0, "rl", "not one member fits into memory")
  if fits < layout.size:
    devices = min(layout.devices, fits)
    room = fits // devices
    require(not exact or layout.vmapped <= room, "vmapped", f"{layout.vmapped}: only {room} members fit into a device's memory")  # fmt: skip
    vmapped = min(layout.vmapped, room)
    layout = Layout(devices, vmapped, devices * (room // vmapped * vmapped))
    some = dataclasses.replace(block, members=block.members[: layout.size])
    fleet = Fleet(some, layout, chunk, like, proxies)
  return Trial(fleet, fits, *device.first_chunk(fleet, colds))


def _lone(fleet: Fleet, colds: Mapping[str, Cold]) -> Trial:
  """The fleet's first member alone."""
  some = dataclasses.replace(fleet.block, members=fleet.block.members[:1])
  alone = Fleet(some, Layout(1, 1, 1), fleet.chunk, state_like(some, colds), fleet.proxies)
  return Trial(alone, 1, *device.first_chunk(alone, colds))


def divergence(vmapped: Trial, lone: Trial, first: int) -> str:
  """How far members are from their lone runs over the first chunk; `first`: steps before the stage."""
  both = min(len(vmapped.fleet.block.members), len(lone.fleet.block.members))
  gaps = {
    name: _gap(vmapped.told.metrics[name][:both], values[:both]) for name, values in lone.told.metrics.items()
  }
  largest = max(gaps, key=lambda name: gaps[name].max())
  steps = np.stack(list(gaps.values())).max(0)  # f[N]
  told = f"differ from lone runs by up to {gaps[largest].max():.1e} ({largest})"
  beyond = np.flatnonzero(steps > WITHIN)
  where = (
    f"beyond {WITHIN:.0e} from step {first + beyond[0] + 1} on" if len(beyond) else f"within {WITHIN:.0e}"
  )
  return f"{told} over the first {len(steps)} steps, {where}"


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """f[N] largest difference of f[M, N] over the members; what is no number in both differs by nothing."""
  same = (a == b) | (np.isnan(a) & np.isnan(b))
  with np.errstate(invalid="ignore"):
    gap = np.abs(a - b) / np.maximum(1.0, np.abs(b))
  return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap)).max(0)
