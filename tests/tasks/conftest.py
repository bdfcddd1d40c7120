"""What tests of tasks share."""

import importlib

import pytest

from o1jax.tasks import humaneval, ifeval, math, mbpp


@pytest.fixture
def in_process(monkeypatch):
  """Has the tasks verify in this process: the pool is for limits, which a test's few rows do not come to."""
  for module in (math, mbpp, humaneval, ifeval):
    monkeypatch.setattr(
      module, "pooled", lambda name: importlib.import_module(f"o1jax.verifiers.{name}").verify
    )
