"""The device mesh, with axes ("data", "fsdp", "tensor")."""

import math
from typing import Sequence

import jax

from o1jax.config import MeshConfig, require

AXES = ("data", "fsdp", "tensor")


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Lays `devices` (default: all) out by `cfg`. Raises ConfigError where the sizes do not fit their number.

  Axes are Auto: XLA propagates shardings from the parameters and the batch, and linen's constraints want it so.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [cfg.data, cfg.fsdp, cfg.tensor]
  known = math.prod(size for size in sizes if size != -1)
  shape = tuple(len(devices) // known if size == -1 else size for size in sizes)
  wanted = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
  require(math.prod(shape) == len(devices), "mesh", f"{wanted} does not fill {len(devices)} devices")
  kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices)
