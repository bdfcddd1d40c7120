"""The whole run at a tiny size: every file it writes, and that a stopped run goes on as if it had not been."""

import concurrent.futures
import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from o1jax import train as train_module
from o1jax.cli import main
from o1jax.config import (
  CheckpointConfig,
  ConfigError,
  CountdownConfig,
  CurriculumConfig,
  DiagnosticsConfig,
  EvalConfig,
  InitConfig,
  LogConfig,
  MeshConfig,
  ModelConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
  replaced,
)  # fmt: skip
from o1jax.io.checkpoint import latest_step, restore_params
from o1jax.io.log import CLOCK_METRICS, read_lines, read_metrics
from o1jax.io.run_config import located, read_run_config
from o1jax.parallel.hosts import EXIT_NONFINITE, EXIT_PREEMPTED, SIGNALS
from o1jax.rollout import setup as preparation
from o1jax.train import train


def config(out: str, **changes) -> TrainConfig:
  base = TrainConfig(
    name="tiny", out=out, controls=True,
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=16, max_tries=2),
    sft=SftConfig(steps=3, rows=8, length=48),
    rl=RLConfig(steps=3, prompts=8, samples=2, max_prompt=5, max_tokens=16),
    eval=EvalConfig(every=(3, 2), problems=8, final_problems=16, samples=2, batch=8, max_tokens=16, budgets=(8, 16), bootstrap=50),
    diagnostics=DiagnosticsConfig(every=0), checkpoint=CheckpointConfig(every=2), log=LogConfig(rollouts_every=2, progress=False), mesh=MeshConfig(),
  )  # fmt: skip
  return dataclasses.replace(base, **changes)


def figures(folder, arm: str) -> dict:
  """What a run's summary says of an arm, but for what the clock made."""
  held = json.loads((folder / "summary.json").read_text())[arm]
  return {k: v for k, v in held.items() if k != "seconds"}


def written(folder) -> list[dict]:
  """The metrics of a run without what the clock made."""
  rows = read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  out = tmp_path_factory.mktemp("whole")
  assert train(config(str(out)), resume=False) == 0
  return out / "tiny"


def test_a_run_writes_what_the_readme_says(whole) -> None:
  summary = json.loads((whole / "summary.json").read_text())
  for arm in (summary["cold_start"], summary["final"], *summary["controls"].values()):
    low, high = arm["pass@1_ci95"]
    assert low <= arm["pass@1"] <= high
  assert set(summary["final"]["curves"]) >= {
    "pooled",
    "within_prompt",
    "forced_budget",
    "natural",
    "best_of_n",
  }
  assert [row["step"] for row in written(whole)] == [1, 2, 3, 4, 5, 6]
  assert (whole / "report.html").stat().st_size > 10_000
  last = written(whole)[-1]
  assert last["flops/useful"] == pytest.approx(summary["train_flops"])
  assert 0 < last["flops/useful"] < last["flops/executed"]
  assert last["logp_gap/max"] < 1e-4
  assert last["rewards/countdown/mean"] == last["reward"]
  tokens = [row["num_tokens"] for row in written(whole)]
  assert tokens == sorted(tokens) and summary["cold_start"]["train_flops"] < summary["final"]["train_flops"]


def test_eval_tells_again_what_the_run_told_at_its_end(whole, tmp_path) -> None:
  shutil.copytree(whole, tmp_path / "run")
  assert main(["eval", str(tmp_path / "run")]) == 0
  told = json.loads((tmp_path / "run" / "eval.json").read_text())
  assert told | {"train_flops": figures(whole, "final")["train_flops"]} == {
    "step": 6,
    **figures(whole, "final"),
  }
  assert main(["eval", str(tmp_path / "run"), "--eval.final_problems", "8", "--eval.budgets"]) == 0
  fewer = json.loads((tmp_path / "run" / "eval.json").read_text())
  assert fewer["problems"] == 8 and "forced_budget" not in fewer["curves"]


def test_a_run_starts_from_another_ones_policy(whole, tmp_path) -> None:
  rl = RLConfig(steps=1, prompts=8, samples=2, max_prompt=5, max_tokens=16)
  begun = config(
    str(tmp_path), name="next", controls=False, sft=SftConfig(), rl=rl, init=InitConfig(str(whole))
  )
  runtime = preparation.prepare(begun)
  saved = restore_params(whole / "checkpoints", 6, preparation.params_like(runtime, 6))
  assert jax.tree.all(jax.tree.map(np.array_equal, preparation.initial_params(runtime), saved))
  half = dataclasses.replace(begun.model, param_dtype="bfloat16", dtype="bfloat16")
  rounded = preparation.initial_params(preparation.prepare(dataclasses.replace(begun, model=half)))
  assert rounded["embedding"].dtype == "bfloat16"
  np.testing.assert_array_equal(rounded["embedding"], saved["embedding"].astype("bfloat16"))

  assert train(begun, resume=False) == 0
  assert read_run_config(str(tmp_path / "next")).init == InitConfig(str(whole), 6)
  # Whatever that run has saved since, this one began at step 6.
  shutil.copytree(whole, tmp_path / "longer")
  (tmp_path / "longer" / "checkpoints" / "6").rename(tmp_path / "longer" / "checkpoints" / "7")
  assert located(begun, tmp_path / "next").init.step == 6
  assert (
    preparation.prepare(
      dataclasses.replace(begun, init=InitConfig(str(tmp_path / "longer")))
    ).config.init.step
    == 7
  )


@pytest.mark.parametrize(("change", "options", "message"), [
  ("", {"model.width": 32}, "model.width: is 32, and 16 in the run {run}"),
  ("", {"task.max_value": 20}, "{run}/tokenizer.model: is not the tokenizer that the task has now"),
  ("", {"init.step": 9}, "{run}/checkpoints"),
  ("no checkpoints", {}, "init.path: {run} has no checkpoint"),
  ("weights", {}, "{run}/config.json: model_type: None is not supported; there are llama,"),
])  # fmt: skip
def test_a_run_that_cannot_be_started_from_is_named(whole, tmp_path, change, options, message) -> None:
  run = shutil.copytree(whole, tmp_path / "run")
  if change == "no checkpoints":
    shutil.rmtree(run / "checkpoints")
  if change == "weights":
    (run / "model.safetensors").touch()
  begun = replaced(config(str(tmp_path), name="next"), {"init.path": str(run), **options})
  with pytest.raises(ConfigError) as refused:
    train(begun, resume=False)
  assert str(refused.value).startswith(message.format(run=run)) and "\n" not in str(refused.value)
  assert not (tmp_path / "next").exists()


@pytest.mark.full
def test_a_run_goes_out_as_weights_and_another_starts_from_them(whole, tmp_path, capfd) -> None:
  weights = tmp_path / "weights"
  assert main(["convert", str(whole), str(weights)]) == 0
  fields = json.loads((weights / "config.json").read_text())
  assert (fields["eos_token_id"], fields["max_position_embeddings"]) == (2, 48)
  rl = RLConfig(steps=1, prompts=8, samples=2, max_prompt=5, max_tokens=16)
  init = InitConfig(str(weights))
  begun = config(str(tmp_path), name="next", controls=False, sft=SftConfig(), rl=rl, init=init)
  begun = replaced(begun, {"model.scan_layers": True})
  runtime = preparation.prepare(begun)
  ours, theirs = preparation.initial_params(runtime), preparation.load_run(str(whole))[1]
  assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a[0], b), ours["layers"], theirs["layer_0"]))
  np.testing.assert_array_equal(ours["embedding"], theirs["embedding"])
  assert train(begun, resume=False) == 0 and train(begun, resume=True) == 0

  assert main(["convert", str(whole), str(weights)]) == 2
  assert capfd.readouterr().err == f"error: {weights}: exists already\n"
  for options, line in (
    ({"model.mlp": 64}, f"model.mlp: is 64, and 32 in {weights}"),
    ({"init.step": 3}, f"init.step: is of a run, and {weights} has no checkpoints"),
    ({"task.max_value": 20}, f"{weights}: holds another tokenizer than the task's"),
  ):
    with pytest.raises(ConfigError, match=line):
      preparation.prepare(replaced(begun, options))


@pytest.mark.full
def test_samples_are_those_of_their_seed(whole, capsys) -> None:
  def sampled(seed: int, *options: str) -> list[str]:
    assert main(["sample", str(whole), "--prompt", "2 3 -> 5", "--seed", str(seed), *options]) == 0
    return capsys.readouterr().out.split("\n")[:-1]

  first = sampled(0, "--samples", "4")
  assert len(first) == 4 and len(set(first)) > 1
  assert sampled(0, "--samples", "4") == first
  assert sampled(1, "--samples", "4") != first
  assert len(greedy := sampled(0, "--temperature", "0")) == 1 and sampled(1, "--temperature", "0") == greedy


@pytest.mark.parametrize("stop_at", [2, pytest.param(3, marks=pytest.mark.full)])
def test_a_stopped_run_goes_on_bitwise(whole, tmp_path, monkeypatch, stop_at) -> None:
  for name in ("sft_step", "rl_step"):
    step_of = getattr(train_module, name)

    def stopping(*args, step_of=step_of, **given):
      if args[3] == stop_at:
        signal.raise_signal(signal.SIGTERM)
      return step_of(*args, **given)

    monkeypatch.setattr(train_module, name, stopping)
  assert train(config(str(tmp_path)), resume=False) == EXIT_PREEMPTED
  assert [row["step"] for row in written(tmp_path / "tiny")][-1] == stop_at
  monkeypatch.undo()
  assert train(config(str(tmp_path)), resume=True) == 0
  assert written(tmp_path / "tiny") == written(whole)
  assert read_lines(tmp_path / "tiny" / "rollouts.jsonl") == read_lines(whole / "rollouts.jsonl")
  old, new = (json.loads((folder / "summary.json").read_text()) for folder in (whole, tmp_path / "tiny"))
  for arm in ("final", "cold_start"):
    assert figures(tmp_path / "tiny", arm) == figures(whole, arm)
  assert new["seconds"]["cold_start"] > 0 and new["seconds"]["rl"] > 0
  assert new["controls"] == old["controls"]


@pytest.mark.full
@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_run_that_dies_in_an_evaluation_has_saved_its_step(whole, tmp_path, monkeypatch, stop_at) -> None:
  """The resumed run makes the evaluation again, and the step's line."""

  def dying(runtime, params, step, quick=train_module.quick_evaluation):
    if step == stop_at:
      raise ZeroDivisionError
    return quick(runtime, params, step)

  monkeypatch.setattr(train_module, "quick_evaluation", dying)
  with pytest.raises(ZeroDivisionError):
    train(config(str(tmp_path), controls=False), resume=False)
  monkeypatch.undo()
  assert latest_step(tmp_path / "tiny" / "checkpoints") == stop_at
  assert [row["step"] for row in written(tmp_path / "tiny")] == list(range(1, stop_at))
  assert train(config(str(tmp_path), controls=False), resume=True) == 0
  assert written(tmp_path / "tiny") == written(whole)
  assert read_lines(tmp_path / "tiny" / "rollouts.jsonl") == read_lines(whole / "rollouts.jsonl")
  assert figures(tmp_path / "tiny", "final") == figures(whole, "final")


def test_outside_the_main_thread_signals_are_left_alone(tmp_path) -> None:
  short = config(str(tmp_path), controls=False, rl=RLConfig(max_prompt=5))
  before = [signal.getsignal(number) for number in SIGNALS]
  with (
    concurrent.futures.ThreadPoolExecutor(1) as thread,
    pytest.warns(UserWarning, match="are left as they were"),
  ):
    assert thread.submit(train, short, resume=False).result() == 0
  assert [signal.getsignal(number) for number in SIGNALS] == before


def test_numbers_have_32_bits_whatever_the_flag_says(tmp_path) -> None:
  jax.config.update("jax_enable_x64", True)
  try:
    setup = preparation.prepare(config(str(tmp_path)))
    assert not jax.config.jax_enable_x64
  finally:
    jax.config.update("jax_enable_x64", False)
  assert setup.config.name == "tiny"


@pytest.mark.parametrize(
  "error", [RuntimeError("Unable to initialize backend 'tpu': INTERNAL:\nno"), AssertionError()]
)
def test_a_backend_that_is_not_there_is_named(tmp_path, monkeypatch, error) -> None:
  def devices():
    raise error

  monkeypatch.setenv("JAX_PLATFORMS", "tpu")
  monkeypatch.setattr(jax, "devices", devices)
  with pytest.raises(
    ConfigError, match="^JAX_PLATFORMS=tpu: no such device here: name another, or leave it out"
  ):
    train(config(str(tmp_path)), resume=False)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_curriculum_that_drops_every_problem_ends_the_run_in_order(tmp_path, capsys) -> None:
  rl = RLConfig(
    steps=9, prompts=8, samples=2, max_prompt=5, max_tokens=16, problems=8,
    curriculum=CurriculumConfig(drop_solved=1, drop_unsolved=1),
  )  # fmt: skip
  dropping = config(str(tmp_path), controls=False, rl=rl)
  assert train(dropping, resume=False) == 0
  line = (
    "of 12: rl.curriculum: every training problem is dropped as always or never solved: raise drop_solved"
  )
  assert line in " ".join(capsys.readouterr().out.split())
  run = tmp_path / "tiny"
  before, last = written(run), written(run)[-1]["step"]
  assert 3 < last < 12 and latest_step(run / "checkpoints") == last
  held = figures(run, "final")
  assert train(dropping, resume=True) == 0
  assert line in " ".join(capsys.readouterr().out.split())
  assert written(run) == before and figures(run, "final") == held


@pytest.mark.full
@pytest.mark.parametrize(("window", "traced"), [((2, 2), [2]), ((2, 9), [2, 3])])
def test_the_profile_holds_the_steps_of_its_window(whole, tmp_path, monkeypatch, window, traced) -> None:
  def marked(setup, stage, state, step, cursor, step_of=train_module.sft_step):
    with jax.profiler.TraceAnnotation(f"marked_{step}"):
      return step_of(setup, stage, state, step, cursor)

  monkeypatch.setattr(train_module, "sft_step", marked)
  log = LogConfig(progress=False, profile=window)
  short = config(str(tmp_path), controls=False, log=log, rl=RLConfig(max_prompt=5))
  assert train(short, resume=False) == 0
  traces = list((tmp_path / "tiny").glob("profile/**/*.xplane.pb"))
  assert len(traces) == 1
  held = traces[0].read_bytes()
  assert [step for step in (1, 2, 3) if f"marked_{step}".encode() in held] == traced
  assert not (whole / "profile").exists()


def test_a_nan_stops_the_run_with_its_rollouts(tmp_path) -> None:
  bad = config(str(tmp_path), sft=SftConfig())
  bad = dataclasses.replace(
    bad, controls=False, rl=dataclasses.replace(bad.rl, entropy=3e38)
  )  # times nats: no float32
  assert train(bad, resume=False) == EXIT_NONFINITE
  rows = read_metrics(tmp_path / "tiny" / "metrics.jsonl")
  assert not np.isfinite(rows[-1]["loss"]) and len(rows) == 1
  rows = read_lines(tmp_path / "tiny" / "rollouts.jsonl")
  assert len(rows) == bad.rl.prompts * bad.rl.samples and {row["step"] for row in rows} == {1}


@pytest.mark.parametrize("resume", [True, False])
def test_other_data_behind_the_same_options_are_refused(whole, tmp_path, resume) -> None:
  shutil.copytree(whole, tmp_path / "tiny")
  path = tmp_path / "tiny" / "config.json"
  saved = json.loads(path.read_text())
  path.write_text(json.dumps(saved | {"meta": saved["meta"] | {"data_hash": "of other problems"}}))
  with pytest.raises(ConfigError, match="config.json: has the data_hash of other problems"):
    train(config(str(tmp_path)), resume=True) if resume else preparation.load_run(str(tmp_path / "tiny"))
  path.write_text(json.dumps(saved))
  (tmp_path / "tiny" / "tokenizer.model").write_bytes(b"another")
  with pytest.raises(ConfigError, match="tokenizer.model: is not the tokenizer that the task has now"):
    train(config(str(tmp_path)), resume=True) if resume else preparation.load_run(str(tmp_path / "tiny"))


def test_another_model_cannot_be_resumed(whole) -> None:
  other = config(
    str(whole.parent), model=ModelConfig(width=32, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)
  )
  with pytest.raises(ConfigError, match="was started with another `model.width`"):
    train(other, resume=True)


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"mesh": MeshConfig(data=9)}, "mesh: data=9"),
    ({"mesh": MeshConfig(data=8), "rl": RLConfig(steps=1, prompts=6, max_prompt=5)}, "rl.prompts: 6 does not divide over"),
    ({"rl": RLConfig(steps=1, prompts=8, max_prompt=2), "sft": SftConfig(), "controls": False}, "rl.max_prompt: problem"),
    ({"sft": SftConfig(steps=1, rows=8, length=4)}, "sft.length: a demonstration has"),
  ],
)  # fmt: skip
def test_what_cannot_run_names_its_field(tmp_path, changes, match) -> None:
  with pytest.raises(ConfigError, match=match):
    train(config(str(tmp_path), **changes), resume=False)
