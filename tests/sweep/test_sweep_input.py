"""The command line of a sweep: help, and one line for whatever cannot run, with no folder left behind."""

import pathlib

import pytest

from o1jax.cli import main
from o1jax.sweep import placement
from o1jax.sweep.run import default_chunk


def said(capsys, *arguments: str) -> str:
  """What help prints."""
  with pytest.raises(SystemExit) as leaving:
    main(["sweep", *arguments])
  out, err = capsys.readouterr()
  assert (leaving.value.code or 0, err) == (0, "")
  return out


def test_help_tells_the_options(capsys, tmp_path, experiment) -> None:
  out = said(capsys, "--help")
  for word in ("o1jax sweep", "EXPERIMENT", "--full", "--resume"):
    assert word in out
  out = said(capsys, experiment(tmp_path), "--help")
  for word in (
    "--seeds",
    "--vmapped",
    "--devices",
    "--chunk",
    "--rl.kl.coef",
    "--diagnostics.every",
    "--full",
    "--resume",
  ):
    assert word in out


def refusal(capsys, folder: pathlib.Path, path: str, *options: str) -> str:
  """The one line in which a sweep is refused; nothing is written."""
  before = sorted(folder.rglob("*"))
  assert main(["sweep", path, *options]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 500
  assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before
  return err.removeprefix("error: ").rstrip()


OPTIONS = {
  "--rl.stepz 3": "--rl.stepz: no such field; did you mean --rl.steps?",
  "--seeds x": "--seeds: wants",
  "--seeds 0 0": "seeds: hold one twice",
  "--seeds": "seeds: are none",
  "--seeds -1": "arm weak: seed: must lie in",
  "--vmapped -1": "vmapped: must not be negative",
  "--vmapped 3": "vmapped: 3 does not divide the 4 members of a device",
  "--vmapped 2 --devices 4": "vmapped: 2 does not divide the 1 members of a device",
  "--devices 9": "devices: 9 of only 8",
  "--chunk 3": "chunk: must divide rl.steps=4, is 3",
  "--rl.steps 5": "chunk: must divide rl.steps=5, is 2",
  "--chunk 4": "chunk: must divide diagnostics.every=2, which comes between two chunks, is 4",
  "--rl.pad_multiple 16": "rl.pad_multiple: must be 0 where steps are fused",
  "--init.path some_run": "init.step: must be given in a sweep, which reads init.path again",
  "--controls True": "controls: cannot act in a sweep",
  "--eval.every 0 1": "eval.every: cannot act in a sweep",
  "--eval.final_problems 9": "arm weak: eval.final_problems: 9 of only 8",
  "--rl.max_prompt 3": "arm weak: rl.max_prompt: problem '",
  "--rl.problems 9999": "arm weak: rl.problems: 9999 of only",
  "--sft.length 4": "sft.length: a demonstration has",
  "--name a/b": "name: must be a folder's name",
  "--log.rollouts 4": "log.rollouts: cannot act where steps are fused: no completion is written",
  "--log.rollouts_every 1": "log.rollouts_every: cannot act where steps are fused",
  "--fused False": "chunk: cannot act where the host verifies",
  "--fused False --chunk 0 --vmapped 2": "vmapped: cannot act where the host verifies",
  "--fused False --chunk 0 --devices 2": "devices: cannot act where the host verifies",
  "--checkpoint.keep 3": "checkpoint.keep: cannot act in a sweep",
  "--eval.bootstrap 50": "eval.bootstrap: cannot act in a sweep",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_bad_option_is_named(tmp_path, experiment, capsys, options) -> None:
  assert refusal(capsys, tmp_path, experiment(tmp_path), *options.split()).startswith(OPTIONS[options])


def test_weights_to_start_from_need_no_step(tmp_path, experiment, capsys) -> None:
  weights = tmp_path / "weights"
  weights.mkdir()
  (weights / "config.json").write_text("{}")
  (weights / "model.safetensors").touch()
  message = refusal(capsys, tmp_path, experiment(tmp_path), "--init.path", str(weights))
  assert message.startswith(f"arm weak: {weights}: holds another tokenizer than the task's")


@pytest.mark.parametrize(
  ("steps", "every", "chunk"), [(400, 10, 10), (400, 25, 5), (32, 0, 8), (32, 10, 2), (7, 0, 7), (13, 0, 1)]
)
def test_a_chunk_divides_the_steps_and_the_diagnoses(steps, every, chunk) -> None:
  assert default_chunk(steps, every) == chunk


CHANGES = {
  "declared, 3": "sweep() gives a tuple, no SweepConfig",
  "dataclasses.replace(declared, seeds=('0',))": "seeds[0]: wants int, has '0'",
  "dataclasses.replace(declared, seeds=3)": "seeds: wants tuple[int, ...], has 3",
  "dataclasses.replace(declared, vmapped=True)": "vmapped: wants int, has True",
  "dataclasses.replace(declared, arms=({'name': 'x'},))": "arms[0].overrides: is missing",
  "dataclasses.replace(declared, arms=(Arm('x', 3),))": "arms[0].overrides: wants names with values, has 3",
  "dataclasses.replace(declared, arms=(Arm('x', {1: 2}),))": "arms[0].overrides: wants names with values",
  "dataclasses.replace(declared, arms=(Arm('x', {}, float('nan')),))": "arms[0].strength: must be finite",
  "dataclasses.replace(declared, arms=(Arm('x', {'seed': 1}, 0.1), *arms))": "arm x: seed: is one for all members",
  "dataclasses.replace(declared, arms=(Arm('x', {'rl.problems': 9999}, 0.1), *arms))": "arm x: rl.problems: 9999 of only",
  "dataclasses.replace(declared, arms=(*arms, Arm('x', {'rl.max_prompt': 3}, 0.1)))": "arm x: rl.max_prompt: problem",
  "dataclasses.replace(declared, claim=Claim('', '', '', (Check('best', 'x'),)))": "claim.checks[0].kind: wants one of",
  "dataclasses.replace(declared, base=dataclasses.replace(declared.base, seed='0'))": "base.seed: wants int, has '0'",
  "dataclasses.replace(declared, base=None)": "base: wants the fields of TrainConfig, has None",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_mistake_in_the_experiment_is_named(tmp_path, experiment, capsys, change) -> None:
  assert CHANGES[change] in refusal(capsys, tmp_path, experiment(tmp_path, sweep=change))


def test_an_experiment_without_a_sweep_is_named(tmp_path, capsys) -> None:
  path = tmp_path / "plain.py"
  for text, told in (
    ("", "has no function sweep()"),
    ("def sweep():\n  pass\n", "TypeError: sweep() takes 0"),
  ):
    path.write_text(text)
    line = refusal(capsys, tmp_path, str(path))
    assert line.startswith(f"{path}: ") and told in line
  assert refusal(capsys, tmp_path, str(tmp_path / "absent.py")).endswith("absent.py: no such experiment file")
  assert main(["sweep"]) == 2 and "EXPERIMENT is missing" in capsys.readouterr().err


@pytest.mark.full
def test_what_does_not_fit_into_memory_is_told_and_a_cold_start_kept(
  tmp_path, experiment, capsys, monkeypatch
) -> None:
  monkeypatch.setattr(placement, "members_that_fit", lambda fleet, share: 0)
  path = experiment(tmp_path, sweep="dataclasses.replace(declared, seeds=(0,))")
  assert main(["sweep", path, "--sft.steps", "1"]) == 2
  assert capsys.readouterr().err == "error: rl: not one member fits into memory\n"
  assert sorted(path.name for path in (tmp_path / "runs" / "tiny").iterdir()) == ["cold_start", "sweep.json"]


@pytest.mark.full
def test_a_vmap_that_does_not_fit_into_memory_is_named(tmp_path, experiment, capsys, monkeypatch) -> None:
  monkeypatch.setattr(placement, "members_that_fit", lambda fleet, share: 1)
  options = ("--vmapped", "2", "--sft.steps", "0")
  line = refusal(capsys, tmp_path, experiment(tmp_path), *options)
  assert line == "vmapped: 2: only 1 members fit into a device's memory"


def test_memory_is_what_is_free_for_programs() -> None:
  assert 2**20 < placement.free_bytes() < 2**50
