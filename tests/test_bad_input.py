"""Bad input ends in exit code 2 and one line that names the field, file or row; nothing on the disk changes."""

import dataclasses
import functools
import http.server
import json
import pathlib
import shlex
import shutil
import threading

import pytest

from o1jax.cli import main
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import read_lines
from o1jax.io.run_config import read_run_config
from o1jax.rl.learner import sft_learner
from o1jax.rollout import setup as preparation

ROWS = (pathlib.Path(__file__).parent / "data" / "gsm8k_rows.jsonl").read_text()
ROW = '{"question": "How many?", "answer": "1+1 = 2.\\n#### 2"}\n'

COUNTDOWN = "CountdownConfig(count=2, max_number=6, max_value=12, held_out=16, max_tries=2)"
MODEL = "ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)"
SFT = "SftConfig(steps=1, rows=8, length=48)"
RL = "RLConfig(steps=1, prompts=8, samples=2, max_prompt=5, max_tokens=16)"


def experiment(folder: pathlib.Path, *, task=COUNTDOWN, model=MODEL, sft=SFT, rl=RL, more="") -> str:
  """An experiment file whose run, `tiny`, goes below `folder`/runs."""
  (folder / "runs").mkdir(exist_ok=True)
  path = folder / "experiment.py"
  path.write_text(f"""
from o1jax.config import *

def get_config():
  return TrainConfig(
    name="tiny", out={str(folder / "runs")!r}, task={task}, model={model}, sft={sft}, rl={rl},
    eval=EvalConfig(
      problems=1, final_problems=1, samples=1, control_samples=1, batch=8, max_tokens=16, bootstrap=50
    ),
    diagnostics=DiagnosticsConfig(every=0), log=LogConfig(progress=False), {more}
  )
""")
  return str(path)


def contents(folder: pathlib.Path) -> dict[str, bytes | None]:
  """Everything below a folder; None for a folder."""
  return {
    str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
  }


def refusal(capfd, folder: pathlib.Path, *arguments: str) -> str:
  """The one line in which a command refuses its input, `folder`/runs being as it was before."""
  before = contents(folder / "runs")
  capfd.readouterr()
  code = main(arguments)
  line = capfd.readouterr().err
  assert code == 2, line
  assert line.startswith("error: ") and line.count("\n") == 1 and len(line) < 500
  assert contents(folder / "runs") == before
  return line.removeprefix("error: ").rstrip()


HEADS = "--mesh.tensor 8 --model.heads 8 --model.kv_heads 8"
OPTIONS = {
  "--rl.stepz 3": "--rl.stepz: no such field; did you mean --rl.steps?",
  "--rl.steps many": "--rl.steps: wants INT",
  "--rl.steps True": "--rl.steps: wants INT",
  "--rl.steps 1.5": "--rl.steps: wants INT",
  "--rl.steps": "--rl.steps",
  "--rl.loss.kind best": "--rl.loss.kind: wants one of",
  "--rl.temperature nan": "rl.temperature: must be finite",
  "--rl.temperature 0": "rl.temperature: must lie in [0.0001, 10000], is 0.0",
  "--rl.samples 1": "rl.samples: grpo needs at least 2",
  "--rl.steps 0 --sft.steps 0": "rl.steps: and sft.steps are both 0",
  "--name a/b": "name: must be a folder's name",
  "--name ..": "name: must be a folder's name",
  "--rl.steps 99999999999999999999": "rl.steps: must lie in [-2**31, 2**31)",
  "--task.split_seed 4294967296": "task.split_seed: must lie in [-2**31, 2**32)",
  "--model.width 4096 --model.mlp 2147483647": "out of memory: a smaller model",
  "--mesh.data 3": (
    "rl.prompts: 8 does not divide over the mesh's 3 shards of the batch: take a multiple of 3"
  ),
  "--mesh.data 16": "mesh: data=16 x fsdp=1 x tensor=1 wants 16 devices or more, here are 8",
  "--mesh.data 0": "mesh: axes are positive",
  "--mesh.data -1 --mesh.fsdp -1": "mesh: at most one axis may be -1",
  "--mesh.tensor 2": "model.kv_heads: 1 does not divide over mesh.tensor=2",
  f"{HEADS} --model.mlp 12": "model.mlp: 12 does not divide over mesh.tensor=8",
  f"{HEADS} --model.vocab 100": "model.vocab: 100 does not divide over mesh.tensor=8",
  "--mesh.fsdp 8 --model.width 12": "model.width: 12 does not divide over mesh.fsdp=8",
  "--rl.prompts 6 --mesh.data 8": "rl.prompts: 6 does not divide over",
  "--sft.rows 4 --mesh.data 8": "sft.rows: 4 does not divide over",
  "--eval.batch 4 --mesh.data 8": "eval.batch: 4 does not divide over",
  "--eval.final_problems 17": "eval.final_problems: 17 of only 16 held-out problems",
  "--eval.every 0 1 --eval.problems 17": "eval.problems: 17 of only 16 held-out problems",
  "--task.held_out 9999": "task.held_out: 9999 of only",
  "--model.vocab 4": "model.vocab: 4 is below the tokenizer's",
  "--rl.problems 9999": "rl.problems: 9999 of only",
  "--task.more_numbers 99999": "task.more_numbers: only",
  "--task.max_target 12": "task.max_target: must be positive and below max_value=12, is 12",
  "--rl.max_prompt 3": "rl.max_prompt: problem '",
  "--rl.max_prompt 4 --task.more_numbers 1": "rl.max_prompt: problem '",
  "--sft.length 4": "sft.length: a demonstration has",
  "--init.path nowhere": "init.path: nowhere is no run's folder: no config.json",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_bad_option_is_named(tmp_path, capfd, options) -> None:
  line = refusal(capfd, tmp_path, "train", experiment(tmp_path), *options.split())
  assert line.startswith(OPTIONS[options])


# A change of the experiment file: what it says where a sound one has the tiny field.
EXPERIMENTS = [
  ({"rl": "RLConfig(stepz=3)"}, "unexpected keyword argument 'stepz'"),
  ({"rl": "RLConfig(steps='3')"}, "rl.steps: wants int, has '3'"),
  ({"rl": "RLConfig(steps=True)"}, "rl.steps: wants int, has True"),
  ({"rl": "RLConfig(entropy=float('nan'))"}, "rl.entropy: must be finite"),
  ({"more": "eval=EvalConfig(budgets=8)"}, "keyword argument repeated"),
  ({"sft": "SftConfig(optim=OptimConfig(schedule='best'))"}, "sft.optim.schedule: wants one of"),
  ({"model": "None"}, "model: wants the fields of ModelConfig, has None"),
  ({"task": "RLConfig()"}, "task.type: wants one of CountdownConfig, Gsm8kConfig, "),
  ({"model": MODEL.replace("width=16, ", "")}, "missing 1 required positional argument: 'width'"),
  ({"more": "seed=1 +"}, "SyntaxError"),
  ({"more": "seed=exit(3)"}, "experiment.py: SystemExit: 3"),
]


@pytest.mark.parametrize(("change", "expected"), EXPERIMENTS, ids=[words for _, words in EXPERIMENTS])
def test_a_mistake_in_an_experiment_is_named(tmp_path, capfd, change, expected) -> None:
  path = experiment(tmp_path, **change)
  line = refusal(capfd, tmp_path, "train", path)
  assert expected in line


def test_a_file_that_is_no_experiment_is_named(tmp_path, capfd) -> None:
  for text in (None, "", "def get_config():\n  return 3\n"):
    path = tmp_path / "other.py"
    if text is not None:
      path.write_text(text)
    assert refusal(capfd, tmp_path, "train", str(path)).startswith(f"{path}: ")


# Data


def gsm8k(folder: pathlib.Path, path: str, **fields) -> str:
  tokenizer = fields.pop("tokenizer", None)
  text = f"TextConfig(tokenizer={tokenizer!r})" if tokenizer else "TextConfig(vocab=400)"
  options = {"path": path, "data_dir": str(folder / "prepared"), "held_out": 1, **fields}
  return f"Gsm8kConfig({', '.join(f'{name}={value!r}' for name, value in options.items())}, text={text})"


FILES = {
  "": "{path}: is empty",
  ROW + '{"question": "How': "{path} row 2: is not JSON",
  ROW + "[1]\n": "{path} row 2: is list, not an object",
  ROW + '{"question": "How many?"}\n': "{path} row 2: has no field 'answer'",
  '{"question": 7, "answer": "#### 1"}\n': "{path} row 1: field 'question' is int, not str",
  ROW + '{"question": "How many?", "answer": "two"}\n': "{path} row 2: field 'answer' has no '####'",
  ROW + '{"question": "How many?", "answer": "#### two"}\n': (
    "{path} row 2: field 'answer': 'two' is not one number"
  ),
  ROW: "task.held_out: 1 rows cannot be held out of the 1 in {path}",
  ROWS: "rl.max_prompt: problem 'train/",
}


@pytest.mark.parametrize("text", FILES, ids=list(FILES.values()))
def test_bad_data_is_named_by_file_and_row(tmp_path, capfd, text) -> None:
  path = tmp_path / "rows.jsonl"
  path.write_text(text)
  line = refusal(capfd, tmp_path, "train", experiment(tmp_path, task=gsm8k(tmp_path, str(path))))
  assert line.startswith(FILES[text].format(path=path))


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({"path": "FOLDER"}, "--task.path: FOLDER/train.jsonl cannot be read: No such file"),
    ({"path": "http://127.0.0.1:9/x"}, "--task.path: cannot download http://127.0.0.1:9/x/train.jsonl"),
    ({"path": "SERVER", "sha256": ("0" * 64, "0" * 64)}, "--task.path: SERVER/train.jsonl has SHA-256"),
    ({"path": "SERVER/train.jsonl", "sha256": ("0" * 64, "0" * 64)}, "--task.sha256: holds two hashes"),
    ({"path": "SERVER/train.jsonl", "sha256": None, "tokenizer": "FOLDER/none"},
     "FOLDER/none: not a SentencePiece model"),
    ({"path": "SERVER/train.jsonl", "sha256": None, "tokenizer": "FOLDER/damaged"},
     "FOLDER/damaged: not a SentencePiece model"),
  ],
)  # fmt: skip
def test_a_source_that_cannot_be_had_is_named(tmp_path, capfd, server, fields, expected) -> None:
  folder = tmp_path / "empty"
  folder.mkdir()
  (folder / "damaged").write_text("no model")
  place = lambda text: text.replace("SERVER", server).replace("FOLDER", str(folder))
  fields = {name: place(value) if isinstance(value, str) else value for name, value in fields.items()}
  path = experiment(tmp_path, task=gsm8k(tmp_path, **fields))
  assert refusal(capfd, tmp_path, "train", path).startswith(place(expected))


@pytest.fixture
def server(tmp_path):
  """The URL of a folder that holds a sound train.jsonl."""
  folder = tmp_path / "www"
  folder.mkdir()
  (folder / "train.jsonl").write_text(ROWS)

  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      pass

  handler = functools.partial(Quiet, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_address[1]}"
    http_server.shutdown()


# A run that is there

NO_RL = "RLConfig(max_prompt=5)"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """What a finished run has written."""
  folder = tmp_path_factory.mktemp("finished")
  assert main(["train", experiment(folder, rl=NO_RL)]) == 0
  return folder / "runs"


@pytest.fixture
def run(finished, tmp_path):
  """A finished run; `experiment.py` two folders above is its experiment."""
  shutil.copytree(finished, tmp_path / "runs")
  experiment(tmp_path, rl=NO_RL)
  return tmp_path / "runs" / "tiny"


def of_run(run: pathlib.Path, text: str) -> str:
  return text.format(run=run, out=run.parent, experiment=run.parent.parent / "experiment.py")


LONG = "n" * 256  # a name that no file can have
COMMANDS = {
  "train {experiment}": "{run}: holds a run already: give it another name, or pass --resume",
  "train {experiment} --resume --model.width 32": "{run}: was started with another `model.width`",
  "train {experiment} --resume --eval.samples 3": "{run}: was started with another `eval.samples`",
  "train {experiment} --resume --seed 1": "{run}: was started with another `seed`",
  "train {experiment} --resume --name other": "{out}/other/config.json: no such file",
  "train {experiment} --out {run}/summary.json": "{run}/summary.json/tiny",
  "eval {out}": "{out}/config.json: no such file",
  "eval {out}/absent": "{out}/absent/config.json: no such file",
  "eval {run} --eval.stepz 1": "--eval.stepz: no such field",
  "eval {run} --eval.final_problems 17": "eval.final_problems: 17 of only 16",
  "sample {out} --prompt x": "{out}/config.json: no such file",
  "sample {run}": "--prompt: is missing",
  "sample {run} --prompt x --seed 99999999999999999999": (
    "--seed: must lie in [0, 2**32), is 99999999999999999999"
  ),
  "sample {run} --prompt x --samples 99999999999999999999": "--samples: must be below 2**31",
  "sample {run} --prompt x --samples 0": "--samples: must be positive",
  "sample {run} --prompt x --samples 2 --temperature 0": "--samples: must be 1 with --temperature 0",
  "sample {run} --prompt ''": "--prompt: has no tokens",
  "sample {run} --prompt '1 2 -> ü'": "--prompt: the vocabulary cannot spell 'ü'",
  "sample {run} --prompt '1 2 3 4 5 6'": "rl.max_prompt: problem '1 2 3 4 5 6' has 6 prompt tokens",
  "report {out}": "{out}: holds no run",
  f"train {{experiment}} --name {LONG}": f"{{out}}/{LONG}: cannot be written: File name too long",
  f"train {{experiment}} --out {LONG}": f"{LONG}/tiny: cannot be written: File name too long",
  **{f"{command} {LONG}": LONG for command in ("train", "sweep", "eval", "report")},
}


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_does_not_fit_the_run_changes_nothing(run, capfd, command) -> None:
  line = refusal(capfd, run.parent.parent, *shlex.split(of_run(run, command)))
  assert line.startswith(of_run(run, COMMANDS[command]))


def without_metrics(run: pathlib.Path) -> None:
  (run / "metrics.jsonl").unlink()
  (run / "config.json").unlink()


def edit_config(run: pathlib.Path, **fields) -> None:
  path = run / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def another_model(run: pathlib.Path) -> None:
  """Puts the checkpoints of a model of another width in the place of the run's own, behind a line of a later
  step."""
  config = read_run_config(str(run))
  wider = preparation.prepare(dataclasses.replace(config, model=dataclasses.replace(config.model, width=32)))
  state = preparation.fresh_state(wider, sft_learner(config, 1), None)
  shutil.rmtree(run / "checkpoints")
  with Checkpoints(run / "checkpoints", keep=1) as checkpoints:
    checkpoints.save(1, state, {})
  with open(run / "metrics.jsonl", "a") as file:
    file.write('{"step": 2, "stage": "sft", "time": 0}\n')


DIFFERS = "{run}/checkpoints/1: checkpoint of another model or setting: params/"
DAMAGES = [
  ("train {experiment}", without_metrics, "{run}: holds a run already"),
  ("train {experiment} --resume", another_model, DIFFERS),
  ("eval {run}", another_model, DIFFERS),
  ("eval {run}", lambda run: shutil.rmtree(run / "checkpoints"), "{run}/checkpoints: holds no checkpoint"),
  ("eval {run}", lambda run: edit_config(run, meta={"data_hash": "0"}),
   "{run}/config.json: has the data_hash of other problems"),
  ("sample {run} --prompt x", lambda run: edit_config(run, seed="0"),
   "{run}/config.json: seed: wants int, has '0'"),
  ("sample {run} --prompt x", lambda run: (run / "config.json").write_text('{"name"'),
   "{run}/config.json: cannot be read as JSON"),
  ("train {experiment} --resume", lambda run: (run / "config.json").write_text("[]"),
   "{run}/config.json: must hold one JSON object"),
  ("train {experiment} --resume", lambda run: (run / "metrics.jsonl").write_text("{\n"),
   "{run}/metrics.jsonl: row 1 is not a JSON object"),
  ("report {run}", lambda run: (run / "metrics.jsonl").write_text("{\n"),
   "{run}/metrics.jsonl: row 1 is not a JSON object"),
  ("report {run}", lambda run: (run / "rollouts.jsonl").unlink(),
   "{run}/rollouts.jsonl: cannot be read: No such file"),
  ("report {run}", lambda run: (run / "summary.json").write_text("{"),
   "{run}/summary.json: cannot be read as JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "damage", "expected"), DAMAGES)
def test_a_damaged_run_is_named_and_left_as_it_is(run, capfd, command, damage, expected) -> None:
  damage(run)
  line = refusal(capfd, run.parent.parent, *shlex.split(of_run(run, command)))
  assert line.startswith(of_run(run, expected))


def test_a_start_that_fails_leaves_the_files_of_others(tmp_path, capfd) -> None:
  """A redirected output may lie in the folder before the run does."""
  (tmp_path / "runs" / "tiny").mkdir(parents=True)
  (tmp_path / "runs" / "tiny" / "out.log").write_text("started\n")
  line = refusal(capfd, tmp_path, "train", experiment(tmp_path), "--sft.length", "4")
  assert line.startswith("sft.length: ")


# A full disk

PAGE = 4096  # what a file takes on a tmpfs is a multiple of it

# Bytes that are free behind the run's first two files, steps between checkpoints, what the line says.
FILLS_UP = [
  (-25 * PAGE, 1, "{run}/tokenizer.model: cannot be written"),
  (2 * PAGE, 100, "{run}/metrics.jsonl: cannot be written"),
  (400 * PAGE, 1, "{run}/checkpoints: no space left on device"),
]


@pytest.mark.full
@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
@pytest.mark.parametrize(("free", "every", "expected"), FILLS_UP)
# tensorstore's threads outlive the event loop of a failed save, and say so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_costs_no_saved_step(
  finished, tmp_path, small_disk, capfd, free, every, expected
) -> None:
  run, filler = small_disk / "tiny", small_disk / "filler"
  train = ["train", experiment(tmp_path, sft=SFT.replace("steps=1", "steps=16"), rl=NO_RL)]
  train += ["--out", str(small_disk), "--checkpoint.keep"]
  sizes = [(finished / "tiny" / name).stat().st_size for name in ("tokenizer.model", "config.json")]
  head = sum(-(-size // PAGE) * PAGE for size in (*sizes, 1))  # the mark of the process that has the folder
  filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - head - free))
  code = main([*train, "99", "--checkpoint.every", str(every)])
  line = capfd.readouterr().err
  assert code == 2 and line.startswith("error: " + expected.format(run=run)) and line.count("\n") == 1
  assert "no space left on device" in line.lower()
  begun, kept = run.exists(), []
  assert begun == (free > 0)  # without a step there is no run
  if every == 1 and begun:
    _, _, step = preparation.load_run(str(run))
    kept = read_lines(run / "metrics.jsonl")[:step]
    assert 0 < step == len(kept) < 16
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [str(s + 1) for s in range(step)]
  filler.unlink()
  assert main([*train, "1", *(["--resume"] if begun else [])]) == 0
  lines = read_lines(run / "metrics.jsonl")
  assert lines[: len(kept)] == kept
  assert [line["step"] for line in lines] == list(range(1, 17))


@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
def test_a_full_disk_leaves_the_report_before_it(finished, small_disk, capfd) -> None:
  run = shutil.copytree(finished, small_disk / "runs") / "tiny"
  for path in (*run.glob("*.png"), run / "report.html"):
    path.write_text("the report before")
  (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
  line = refusal(capfd, small_disk, "report", str(run))
  assert line.startswith(f"{run}/") and line.endswith("No space left on device")
