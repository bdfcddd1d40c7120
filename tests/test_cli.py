"""The command line: overrides reach the configuration, and a mistake is one line on standard error."""

import dataclasses
import errno
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from o1jax import cli
from o1jax.config import EvalConfig, RopeScaling, TrainConfig
from o1jax.io.run_config import config_to_dict, load_experiment

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = str(ROOT / "experiments" / "quickstart.py")
GSM8K = str(ROOT / "experiments" / "gsm8k_smoke.py")
GROUPS = {"model", "task", "sft", "rl", "eval", "checkpoint", "mesh", "log"}


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of each field that holds no dataclass."""
  for name, item in vars(value).items():
    inner = dataclasses.is_dataclass(item)
    yield from leaves(item, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", item)]


@pytest.fixture
def trained(monkeypatch) -> list[tuple[TrainConfig, bool]]:
  """What `o1jax train` would have run: (configuration, resume) of each call."""
  calls: list[tuple[TrainConfig, bool]] = []

  def train(config: TrainConfig, *, resume: bool) -> int:
    calls.append((config, resume))
    return 75

  monkeypatch.setattr("o1jax.train.train", train)
  return calls


@pytest.fixture
def run(tmp_path) -> str:
  """A run's folder as far as a command line reads it."""
  text = json.dumps({**config_to_dict(load_experiment(QUICKSTART)), "meta": {}})
  (tmp_path / "config.json").write_text(text)
  return str(tmp_path)


def helped(capsys, *arguments: str) -> str:
  """What `arguments` print on standard output, once they have ended well and said nothing else."""
  try:
    code: Any = cli.main(arguments)
  except SystemExit as leaving:
    code = leaving.code
  out, err = capsys.readouterr()
  assert (code, err) == (0, "")
  return out


def refused(capsys, *arguments: str) -> str:
  """The one line that bad input ends in."""
  assert cli.main(arguments) == 2
  out, err = capsys.readouterr()
  assert out == "" and err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
  return err.removeprefix("error: ").removesuffix("\n")


# Help


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command_and_exit_code(capsys, flag) -> None:
  out = helped(capsys, flag)
  for command in cli.COMMANDS:
    assert f"\n  {command} " in out
  for code in ("0 done", "2 bad input", "75 stopped by a signal", "76 stopped by a NaN"):
    assert code in " ".join(out.split())


@pytest.mark.parametrize(
  ("command", "words"),
  [
    ("train", ["EXPERIMENT", "--resume"]),
    ("sweep", ["EXPERIMENT", "--full", "--resume"]),
    ("eval", ["RUN", "newest checkpoint"]),
    ("report", ["RUN", "report.html"]),
    ("sample", ["RUN", "--prompt STR", "--samples INT", "--temperature FLOAT", "--seed INT"]),
  ],
)
def test_every_command_explains_its_arguments(capsys, command, words) -> None:
  out = helped(capsys, command, "--help")
  assert f"o1jax {command}" in out
  for word in words:
    assert word in out


@pytest.mark.parametrize("experiment", [QUICKSTART, GSM8K], ids=["quickstart", "gsm8k"])
def test_an_experiments_help_lists_every_field(capsys, experiment) -> None:
  out = helped(capsys, "train", experiment, "--help")
  names = [name for name, _ in leaves(load_experiment(experiment)) if name != "model.rope_scaling"]
  assert GROUPS <= {name.partition(".")[0] for name in names} and len(names) > 90
  for option in ("resume", *names):
    assert f"--{option} " in out or f"--{option}\n" in out, option


def test_a_runs_help_lists_the_fields_of_its_evaluation(capsys, run) -> None:
  out = helped(capsys, "eval", run, "--help")
  for field in dataclasses.fields(EvalConfig):
    assert f"--eval.{field.name} " in out
  assert "--rl." not in out


def test_help_as_a_module_starts_no_jax() -> None:
  command = [sys.executable, "-X", "importtime", "-m", "o1jax", "--help"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0 and done.stdout.startswith("usage: o1jax COMMAND")
  imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
  assert "o1jax.cli" in imported and "jax" not in imported


# Overrides


@pytest.mark.parametrize(
  ("arguments", "changes"),
  [
    ("", {}),
    ("--rl.steps 7", {"rl.steps": 7}),
    ("--rl.steps=7", {"rl.steps": 7}),
    ("--seed 3 --rl.steps 7 --name other", {"seed": 3, "rl.steps": 7, "name": "other"}),
    ("--rl.optim.lr 1e-3 --rl.entropy -0.5", {"rl.optim.lr": 1e-3, "rl.entropy": -0.5}),
    ("--rl.temperature 1", {"rl.temperature": 1.0}),
    ("--eval.budgets 4 8 16 --model.window 0 8 0", {"eval.budgets": (4, 8, 16), "model.window": (0, 8, 0)}),
    ("--eval.budgets --model.rope-theta 1e6", {"eval.budgets": (), "model.rope_theta": (1e6,)}),
    ("--model.query-scale 0.5", {"model.query_scale": 0.5}),
    ("--rl.loss.clip-low None --model.query_scale None", {}),
    ("--log.progress False --controls False", {"log.progress": False, "controls": False}),
    ("--model.scan-layers True --model.norm_plus_one True",
     {"model.scan_layers": True, "model.norm_plus_one": True}),
    (
      "--rl.loss.kind dual_clip --rl.loss.clip-low 0.2 --rl.loss.clip_high 0.28 --rl.loss.dual_clip 3"
      " --rl.epochs 2",
      {"rl.loss.kind": "dual_clip", "rl.loss.clip_low": 0.2, "rl.loss.clip_high": 0.28, "rl.loss.dual_clip": 3.0,
       "rl.epochs": 2},
    ),
    ("--task.max-number 9 --mesh.data -1 --mesh.tensor 2", {"task.max_number": 9, "mesh.tensor": 2}),
  ],
)  # fmt: skip
def test_an_override_changes_its_field_alone(trained, capsys, arguments, changes) -> None:
  assert cli.main(["train", QUICKSTART, *arguments.split()]) == 75  # the run's own exit code
  ((config, resume),) = trained
  assert not resume and capsys.readouterr() == ("", "")
  parsed, expected = dict(leaves(config)), dict(leaves(load_experiment(QUICKSTART))) | changes
  assert parsed == expected
  assert {name: type(value) for name, value in parsed.items()} == {n: type(v) for n, v in expected.items()}


@pytest.mark.parametrize("option", ["--model.rope_scaling.factor", "--model.rope-scaling.factor"])
def test_naming_a_field_of_an_absent_group_makes_the_group(trained, option) -> None:
  cli.main(["train", QUICKSTART, option, "4"])
  assert trained[0][0].model.rope_scaling == RopeScaling(factor=4.0)


def test_another_tasks_fields_are_options_of_its_experiment(trained) -> None:
  cli.main(["train", GSM8K, "--task.path", "https://host/rows", "--task.sha256", "a", "b"])
  cli.main(["train", GSM8K, "--task.sha256", "None"])
  (first, _), (second, _) = trained
  assert (first.task.path, first.task.sha256, second.task.sha256) == ("https://host/rows", ("a", "b"), None)


@pytest.mark.parametrize(
  "arguments", [["--resume"], ["--seed", "1", "--resume"], ["--resume", "--seed", "1"]]
)
def test_resume_is_passed_on(trained, arguments) -> None:
  cli.main(["train", QUICKSTART, *arguments])
  assert trained[0][1] is True


def test_an_evaluation_starts_from_the_runs_settings(monkeypatch, run) -> None:
  calls = []
  monkeypatch.setattr(
    "o1jax.evaluate.figures.evaluate_run", lambda *args, **options: calls.append((args, options)) or 0
  )
  assert cli.main(["eval", run, "--eval.samples", "16", "--eval.budgets"]) == 0
  expected = dataclasses.replace(load_experiment(QUICKSTART).eval, samples=16, budgets=())
  assert calls == [((run,), {"overrides": expected})]


def test_a_sample_passes_its_options_on(monkeypatch) -> None:
  calls = []
  monkeypatch.setattr(
    "o1jax.evaluate.figures.sample_run", lambda *args, **options: calls.append((args, options)) or 0
  )
  assert cli.main(["sample", "some/run", "--prompt", "1 2 :", "--temperature", "0", "--samples", "3"]) == 0
  assert calls == [(("some/run", "1 2 :"), {"samples": 3, "temperature": 0.0, "seed": 0})]


# Mistakes


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    ("", "a command is missing: train, sweep, eval, report, verify, sample, convert (see o1jax --help)"),
    ("trian",
     "trian: no such command; there are train, sweep, eval, report, verify, sample, convert (see o1jax --help)"),
    ("train", "train: EXPERIMENT is missing; it comes first, as in o1jax train EXPERIMENT --field VALUE"),
    ("train --rl.steps 3",
     "train: EXPERIMENT is missing; it comes first, as in o1jax train EXPERIMENT --field VALUE"),
    ("eval", "eval: RUN is missing; it comes first, as in o1jax eval RUN --field VALUE"),
    ("report", "RUN: is missing (see o1jax report --help)"),
    ("sample", "RUN, --prompt: is missing (see o1jax sample --help)"),
    ("sample RUN --prompt x --samples 0", "--samples: must be positive, is 0"),
    *(
      (f"sample RUN --prompt x --temperature {t}",
       f"--temperature: must lie in [0.0001, 10000], or be 0, greedy, is {float(t)}")
      for t in ("nan", "inf", "1e39", "1e-45", "1e-320", "-1")
    ),
    ("train nowhere.py", "nowhere.py: no such experiment file"),
    ("eval nowhere", "nowhere/config.json: no such file; is nowhere a run's folder?"),
    ("report nowhere", "nowhere: holds no run (no metrics.jsonl)"),
  ],
)  # fmt: skip
def test_a_mistake_in_a_command_is_one_line(capsys, tmp_path, monkeypatch, arguments, line) -> None:
  monkeypatch.chdir(tmp_path)
  assert refused(capsys, *arguments.split()) == line


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    ("--rl.stpes 3", "--rl.stpes: no such field; did you mean --rl.steps?"),
    ("--rl.loss.cliplow=3", "--rl.loss.cliplow: no such field; did you mean --rl.loss.clip_low?"),
    ("--rl.max-token 3", "--rl.max-token: no such field; did you mean --rl.max_tokens?"),
    ("--model.rope_scaling None",
     "--model.rope_scaling: no such field; did you mean --model.rope_scaling.factor?"),
    ("--model.rope_scaling.facto 3",
     "--model.rope_scaling.facto: no such field; did you mean --model.rope_scaling.factor?"),
    ("--colour red", "--colour: no such field; see o1jax train EXPERIMENT --help"),
    ("3", "3: unexpected argument (see o1jax train EXPERIMENT --help)"),
    ("--resume True", "True: unexpected argument (see o1jax train EXPERIMENT --help)"),
    ("--rl.steps", "--rl.steps: wants INT"),
    ("--rl.steps 1.5", "--rl.steps: wants INT: invalid literal for int() with base 10: '1.5'"),
    ("--rl.optim.lr fast", "--rl.optim.lr: wants FLOAT: could not convert string to float: 'fast'"),
    ("--rl.optim.lr nan", "rl.optim.lr: must be finite, is nan"),
    ("--log.progress maybe", "--log.progress: wants one of True, False, has 'maybe'"),
    ("--log.progress", "--log.progress: wants {True,False}"),
    ("--model.dtype float16", "--model.dtype: wants one of float32, bfloat16, has 'float16'"),
    ("--rl.steps -1", "rl.steps: must not be negative"),
    ("--rl.minibatches 5", "rl.minibatches: does not divide prompts=32"),
  ],
)  # fmt: skip
def test_a_mistake_in_an_option_is_one_line_that_names_it(trained, capsys, arguments, line) -> None:
  error = refused(capsys, "train", QUICKSTART, *arguments.split())
  assert error.replace(QUICKSTART, "EXPERIMENT") == line and not trained


def test_a_wrong_list_names_its_option(trained, capsys) -> None:
  line = refused(capsys, "train", QUICKSTART, "--eval.budgets", "8", "x")
  assert line.startswith("--eval.budgets: wants [INT [INT ...]]: ") and not trained


def test_a_wrong_evaluation_is_one_line(capsys, run) -> None:
  assert refused(capsys, "eval", run, "--eval.top-p", "0") == "eval.top_p: must lie in (0, 1]"
  hint = "did you mean --eval.samples?"
  assert refused(capsys, "eval", run, "--eval.sample", "1") == f"--eval.sample: no such field; {hint}"


def test_an_experiment_that_raises_is_one_line_whatever_it_says(capsys, tmp_path) -> None:
  path = tmp_path / "study.py"
  path.write_text("raise RuntimeError('two\\nlines')")
  assert refused(capsys, "train", str(path)) == f"{path}: RuntimeError: two lines"


def test_an_interruption_at_the_start_is_told_by_its_exit_code_alone(capsys, monkeypatch) -> None:
  def interrupted(arguments: list[str]) -> int:
    raise KeyboardInterrupt

  monkeypatch.setitem(cli.COMMANDS, "report", interrupted)
  assert cli.main(["report", "x"]) == 130
  assert capsys.readouterr() == ("", "")


def test_a_full_disk_is_one_line_and_other_faults_keep_their_traceback(capsys, monkeypatch) -> None:
  faults: list[Exception] = [OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl")]
  faults += [OSError(errno.EIO, "Input/output error"), ZeroDivisionError()]

  def train(config: TrainConfig, *, resume: bool) -> int:
    raise faults[0]

  monkeypatch.setattr("o1jax.train.train", train)
  assert refused(capsys, "train", QUICKSTART) == "runs/x/metrics.jsonl: No space left on device"
  while faults := faults[1:]:
    with pytest.raises(type(faults[0])):
      cli.main(["train", QUICKSTART])
