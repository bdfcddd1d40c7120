"""One pool for all verifiers that a process asks for."""

import pytest

from o1jax.config import HumanevalConfig, MathConfig, MbppConfig
from o1jax.tasks import pooled as module
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.verifiers.base import Problem


class FakePool:
  """Records what it was made for and asked."""

  made: list["FakePool"] = []

  def __init__(self, names, workers):
    self.names, self.workers, self.closed, self.asked = list(names), workers, False, []
    FakePool.made.append(self)

  def verify(self, name, problems, completions, settings):
    self.asked.append((name, dict(settings)))
    return [f"{name} {text}" for text in completions]

  def close(self):
    self.closed = True


@pytest.fixture
def shared(monkeypatch):
  """A fresh registry whose pools are fakes."""
  monkeypatch.setattr(FakePool, "made", [])
  monkeypatch.setattr(module, "Pool", FakePool)
  monkeypatch.setattr(module, "_SHARED", module._Shared())
  return module._SHARED


def test_a_pool_is_made_when_something_is_verified_and_serves_all(shared):
  gsm8k, math = pooled("gsm8k"), pooled("math", extractors=("boxed",))
  assert FakePool.made == []
  assert math([None, None], ["a", "b"]) == ["math a", "math b"] and gsm8k([None], ["c"]) == ["gsm8k c"]
  (pool,) = FakePool.made
  assert pool.names == ["gsm8k", "math"] and pool.workers >= 1
  assert pool.asked == [("math", {"extractors": ("boxed",)}), ("gsm8k", {})]


def test_a_name_that_the_pool_lacks_makes_a_new_one_and_a_known_one_does_not(shared):
  gsm8k = pooled("gsm8k")
  gsm8k([None], ["a"])
  pooled("gsm8k")
  gsm8k([None], ["b"])
  assert [pool.names for pool in FakePool.made] == [["gsm8k"]]
  code = pooled("code")
  code([None], ["c"])
  gsm8k([None], ["d"])
  assert [(pool.names, pool.closed) for pool in FakePool.made] == [
    (["gsm8k"], True),
    (["gsm8k", "code"], False),
  ]


def test_closed_it_begins_anew(shared):
  gsm8k = pooled("gsm8k")
  gsm8k([None], ["a"])
  shared.close()
  assert FakePool.made[0].closed
  gsm8k([None], ["b"])
  assert len(FakePool.made) == 2 and not FakePool.made[1].closed


@pytest.mark.parametrize(
  ("cfg", "settings", "name"),
  [
    (MathConfig(), {}, "x"),
    (MathConfig(policy="standard"), {"policy": "standard"}, "x standard"),
    (MbppConfig(block="first"), {"block": "first"}, "x first"),
    (
      HumanevalConfig(policy="standard", block="first"),
      {"policy": "standard", "block": "first"},
      "x standard first",
    ),
  ],
)
def test_a_task_chooses_the_settings_of_its_verifier(cfg, settings, name):
  assert (chosen(cfg), called("x", cfg)) == (settings, name)


def test_the_real_pool_grades():
  verify = pooled("gsm8k")
  problems = [Problem("1", "", "18", "gsm8k"), Problem("2", "", "7", "gsm8k")]
  try:
    assert [verdict.error for verdict in verify(problems, ["#### 18", "#### 8"])] == [None, "wrong"]
  finally:
    module.close()
