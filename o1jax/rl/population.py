"""A program of one member, run for many: mapped one after the other, vmapped, or blocks of the one in the other, on a mesh.

A member that is mapped computes what it would compute alone, bit for bit; vmapped members share every product and agree
within rounding. Members lie along the mesh's `data` axis, and no device asks another for anything.
"""

from typing import Any, Callable

import jax
from jax.sharding import Mesh, PartitionSpec

MEMBER = "member"  # name of the vmapped axis; the sampler's stop is reduced over it
One = Callable[[Any, Any, Any], Any]  # (state of a member, what it is fed, what all share) -> result


def population(one: One, *, vmapped: int, mesh: Mesh) -> One:
  """`one` over a leading axis M of states, feeds and results; what all share has none.

  vmapped: members in one vmap on a device, dividing M / devices; 1 is lax.map alone.
  """

  def here(states: Any, feeds: Any, shared: Any) -> Any:
    if vmapped == 1:
      return jax.lax.map(lambda pair: one(pair[0], pair[1], shared), (states, feeds))
    blocks = jax.tree.map(lambda a: a.reshape(-1, vmapped, *a.shape[1:]), (states, feeds))
    each = jax.vmap(lambda pair: one(pair[0], pair[1], shared), axis_name=MEMBER)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(each, blocks))

  along, whole = PartitionSpec("data"), PartitionSpec()
  return jax.shard_map(here, mesh=mesh, in_specs=(along, along, whole), out_specs=along, check_vma=False)
