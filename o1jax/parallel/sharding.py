"""The table from logical axes to mesh axes, and the shardings that follow from it."""

import math
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
  ("batch", ("data", "fsdp")),
  ("length", None),
  ("embed", "fsdp"),  # of parameters: gathered where used
  ("embed_act", None),  # of activations
  ("vocab", "tensor"),
  ("mlp", "tensor"),
  ("kv_heads", "tensor"),
  ("q_per_kv", None),
  ("head_dim", None),
  ("gate_up", None),
  ("layers", None),
)


def rules_within(axes: Collection[str]) -> tuple[tuple[str, str | None], ...]:
  """The table inside a `shard_map` over `axes`, which no array there is split over any more."""
  return tuple((name, axis if isinstance(axis, str) and axis not in axes else None) for name, axis in RULES)


def param_shardings(boxed: Any, mesh: Mesh) -> Any:
  """Shardings of parameters from their logical axis names (`boxed`: arrays or shapes, boxed by linen)."""
  return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)


def state_shardings(state: Any, params: Any, mesh: Mesh) -> Any:
  """Shardings of a TrainState (arrays or shapes) from those of its parameters.

  A leaf whose path ends in a parameter's path (a moment, the reference) has its sharding; others are
  replicated.
  """
  by_path = dict(jax.tree_util.tree_leaves_with_path(params))

  def of(path: tuple, _: Any) -> NamedSharding:
    ends = (path[start:] for start in range(len(path)))
    return next((by_path[end] for end in ends if end in by_path), replicated(mesh))

  return jax.tree_util.tree_map_with_path(of, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows split over data and fsdp, all other axes unsplit."""
  return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batch_rows(mesh: Mesh) -> int:
  """Number of shards of the batch: rows must be a multiple of it."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_axes(rows: int) -> tuple[str, ...]:
  """Axes of the current mesh that split `rows` rows; none without a mesh, or where they do not divide."""
  shape, both = jax.sharding.get_abstract_mesh().shape, ("data", "fsdp")
  axes = tuple(axis for axis in both if shape[axis] > 1) if shape.keys() >= set(both) else ()
  return axes if rows % math.prod(shape[axis] for axis in axes) == 0 else ()


def batch_shards() -> int:
  """Shards of the batch over the current mesh; 1 without one."""
  shape = jax.sharding.get_abstract_mesh().shape
  return math.prod(shape.get(axis, 1) for axis in ("data", "fsdp"))


def put_rows(tree: Any, mesh: Mesh) -> Any:
  """Host arrays with a leading batch axis -> global arrays sharded by row."""
  return jax.device_put(tree, batch_sharding(mesh))
