"""Device mesh with axes ("data", "fsdp", "tensor")."""

import math
from typing import Sequence

import jax

from o1jax.config import MeshConfig, require

AXES = ("data", "fsdp", "tensor")


def make_mesh(
  cfg: MeshConfig, devices: Sequence[jax.Device] | None = None, *, rows: int = 0
) -> jax.sharding.Mesh:
  """The mesh of `cfg` over the first of `devices` (default: all). Raises ConfigError if they are too few.

  A batch axis of -1 takes as many of the remaining devices as divide `rows` (any number divides 0); a tensor
  axis of -1 takes all. One process may leave devices out, several may not. Axes are Auto: XLA propagates
  shardings from the parameters and the batch, and linen's constraints need it.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [cfg.data, cfg.fsdp, cfg.tensor]
  known = math.prod(size for size in sizes if size != -1)
  # shards of the batch, as far as they are given
  beside = math.prod(size for size in sizes[:2] if size != -1)
  left = len(devices) // known
  if -1 in sizes[:2]:
    left = next((count for count in range(left, 0, -1) if rows % (count * beside) == 0), left)
  shape = tuple(left if size == -1 else size for size in sizes)
  layout = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
  there, used = len(devices), math.prod(shape)
  require(0 < used <= there, "mesh", f"{layout} wants {known} devices or more, here are {there}")
  allowed = used == there or jax.process_count() == 1
  why = f"{layout} leaves out {there - used} of {there} devices, which several processes cannot"
  require(allowed, "mesh", why)
  kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices[:used])
