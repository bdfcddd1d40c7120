"""Verifiers in worker processes.

    Pool (pool) -> dispatcher thread (dispatch) -> fork server (forkserver) -> worker processes (worker)

Verdicts are cached by content (`cache`); processes speak in messages over sockets (`framing`).
"""

from o1jax.verifiers.pool.dispatch import PoolError, PoolLimits
from o1jax.verifiers.pool.pool import Pending, Pool, ProblemError, cores

__all__ = ["Pending", "Pool", "PoolError", "PoolLimits", "ProblemError", "cores"]
