"""What tests of tasks share."""

import importlib

import pytest

from o1jax.tasks import bugfix, dataset
from o1jax.verifiers.catalog import CATALOG


def verifier(name: str, **settings):
  """What the pool's workers make of a name and settings."""
  made = importlib.import_module(CATALOG[name].module)
  return made.make_verify(**settings) if settings else made.verify


@pytest.fixture
def in_process(monkeypatch):
  """Has the tasks verify in this process: the pool is for limits, which a test's few rows do not come to."""
  for module in (dataset, bugfix):
    monkeypatch.setattr(module, "pooled", verifier)
