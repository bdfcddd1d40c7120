"""What an HTTP judge's configuration refuses, and what it says where its packages are missing."""

import ast
import builtins
import inspect
import pathlib
import subprocess
import sys

import pytest

from o1jax.config import ConfigError, JudgeConfig
from o1jax.config import judge as module
from o1jax.verifiers.judge.http import Endpoint

ROOT = pathlib.Path(__file__).parents[3]
KEY = "sk-test-0123456789"


FAULTS = [
  ({"model": ""}, "judge.model: must name a model"),
  ({"base_url": "localhost:8000"}, "judge.base_url: must be an http(s) URL"),
  ({"base_url": "http://"}, "judge.base_url: must be an http(s) URL"),
  ({"base_url": "http://[::1"}, "judge.base_url: must be an http(s) URL"),
  ({"base_url": "http://host:none/v1"}, "judge.base_url: must be an http(s) URL"),
  ({"base_url": "https://me:pw@host/v1"}, "judge.base_url: must not hold a user or password: "
   "the configuration is written down"),
  ({"api_key_env": KEY},
    "judge.api_key_env: must be the name of an environment variable, never the key itself"),
  ({"concurrency": 0}, "judge.concurrency: must be positive"),
  ({"timeout": 0.0}, "judge.timeout: must be positive"),
  ({"max_retries": -1}, "judge.max_retries: must not be negative"),
  ({"requests_per_minute": 0.0}, "judge.requests_per_minute: must be positive, or None"),
  ({"threshold": 1.0}, "judge.threshold: must lie in [0, 1)"),
  ({"top_logprobs": 21}, "judge.top_logprobs: must lie in 1..20"),
  ({"temperature": 0.5}, 'judge.temperature: cannot act with votes=0, which reads P("Yes") of one token'),
  ({"seed": 1}, 'judge.seed: cannot act with votes=0, which reads P("Yes") of one token'),
  ({"votes": 2, "top_logprobs": 5},
    "judge.top_logprobs: cannot act with votes, which are read from their text"),
  ({"votes": 2, "temperature": 0.0}, "judge.temperature: is 0, greedy, so that 2 votes are all one"),
]  # fmt: skip


def refusal(options) -> ConfigError:
  with pytest.raises(ConfigError) as caught:
    JudgeConfig(**{"model": "m", **options}).validate("judge")
  return caught.value


@pytest.mark.parametrize(("options", "told"), FAULTS)
def test_a_setting_that_cannot_work_is_named_and_no_key_is_repeated(options, told) -> None:
  assert str(refusal(options)) == told


def test_every_check_has_a_case_above() -> None:
  calls = [n for n in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(n, ast.Call)]
  checks = {call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "require"}
  reached = set()
  for options, _ in FAULTS:
    trace = refusal(options).__traceback__
    while trace.tb_next.tb_frame.f_code.co_name != "require":
      trace = trace.tb_next
    reached.add(trace.tb_lineno)
  assert len(checks) > 10 and reached == checks


def test_an_endpoint_checks_its_configuration_and_its_key(monkeypatch) -> None:
  with pytest.raises(ConfigError, match="judge.concurrency: must be positive"):
    Endpoint(JudgeConfig(model="m", concurrency=0))
  for value in (None, " "):
    monkeypatch.setenv("A_JUDGES_KEY", value) if value else monkeypatch.delenv("A_JUDGES_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
      Endpoint(JudgeConfig(model="m", api_key_env="A_JUDGES_KEY"))
    assert str(caught.value) == "judge.api_key_env: the environment has no A_JUDGES_KEY"


def test_the_module_loads_neither_the_extra_nor_jax() -> None:
  code = "import sys, o1jax.verifiers.judge.http; print({'openai', 'aiolimiter', 'jax'} & set(sys.modules))"
  told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
  assert told.stdout == "set()\n"


@pytest.mark.parametrize("package", ["openai", "aiolimiter"])
def test_without_the_extra_an_endpoint_names_it(monkeypatch, package) -> None:
  real = builtins.__import__

  def lacking(name, *arguments, **named):
    if name == package:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, *arguments, **named)

  monkeypatch.setattr(builtins, "__import__", lacking)
  with pytest.raises(ConfigError) as caught:
    Endpoint(JudgeConfig(model="m", api_key_env=None))
  assert str(caught.value) == f"judge: needs the package {package}: pip install 'o1jax[judge]'"
