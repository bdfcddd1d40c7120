"""Verifiers in worker processes: the pool, its dispatcher, fork server and workers."""
