"""A tiny experiment, and the one line in which a command refuses it."""

import pathlib

from o1jax.cli import main

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


def gsm8k(folder: pathlib.Path, path: str, **fields) -> str:
  tokenizer = fields.pop("tokenizer", None)
  text = f"TextConfig(tokenizer={tokenizer!r})" if tokenizer else "TextConfig(vocab=400)"
  options = {"path": path, "data_dir": str(folder / "prepared"), "held_out": 1, **fields}
  return f"Gsm8kConfig({', '.join(f'{name}={value!r}' for name, value in options.items())}, text={text})"
