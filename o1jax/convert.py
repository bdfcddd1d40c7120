"""`o1jax convert`: a run's policy, or a GGUF file, as a folder in Hugging Face's layout.

    RUN | FILE.gguf -> model, tensors, tokenizer -> FOLDER/{config.json, model*.safetensors, tokenizer files}

transformers loads the folder, and `--init.path FOLDER` starts a run from it. It appears when all of it is
written. Left out: adapters, other formats.
"""

import json
import pathlib
from typing import Any

import rich

from o1jax.config import TrainConfig, require
from o1jax.io.files import new_folder, write_atomically
from o1jax.io.run_config import read_json
from o1jax.io.tokenizer import SentencePieceTokenizer
from o1jax.io.weights import is_weights_folder, tensors_of, write_tensors
from o1jax.model.hf import hf_config
from o1jax.rollout.setup import Runtime, load_run

GENERATION = "generation_config.json"


def convert(source: str, folder: str) -> int:
  """Writes `source`, a run's folder or a GGUF file, to `folder`, which is not to exist. Returns exit code 0.

  Raises ConfigError where transformers has no such model, or the source cannot be read.
  """
  path, target = pathlib.Path(source), pathlib.Path(folder)
  require(not target.exists(), folder, "exists already")
  if path.suffix == ".gguf":
    require(path.is_file(), source, "no such file")
    _convert_gguf(path, target)
  else:
    _convert_run(source, target)
  rich.print(f"{folder}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB")
  return 0


def _convert_gguf(path: pathlib.Path, target: pathlib.Path) -> None:
  from o1jax.io.gguf_file import read_gguf

  content = read_gguf(path)
  with new_folder(target) as place:
    write_tensors(place, {**hf_config(content.model), **content.fields}, content.tensors)
    for name, data in content.files.items():
      write_atomically(place / name, data)


def _convert_run(source: str, target: pathlib.Path) -> None:
  runtime, params, _ = load_run(source)
  tokenizer, model = runtime.task.tokenizer, runtime.config.model
  ids = {"eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
  config = {**hf_config(model), **ids, "max_position_embeddings": longest_text(runtime)}
  with new_folder(target) as place:
    write_tensors(place, config, tensors_of(model, params))
    in_file = isinstance(tokenizer, SentencePieceTokenizer)
    tokenizer.save(place / "tokenizer.model" if in_file else place)
    if not (place / GENERATION).exists():
      write_atomically(place / GENERATION, (json.dumps(ids, indent=2) + "\n").encode())


def longest_text(runtime: Runtime) -> int:
  """Tokens of the longest text that the model is for: the weights' that it began from, or its training's."""
  config: TrainConfig = runtime.config
  response = max(config.rl.max_tokens, config.eval.max_tokens)
  trained = max(config.rl.max_prompt + response, config.sft.length if config.sft.steps else 0)
  init = pathlib.Path(config.init.path or "")
  if config.init.path is None or not is_weights_folder(init):
    return trained
  known: Any = read_json(init / "config.json").get("max_position_embeddings")
  return max(trained, known or 0)
