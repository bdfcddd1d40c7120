"""A run on a Hugging Face folder's tokenizer and chat template, which pads with an end of text."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf_folder import EOT, IM_END, write_folder

from o1jax.config import (
  ArithmeticConfig,
  ConfigError,
  EvalConfig,
  InitConfig,
  LogConfig,
  MeshConfig,
  ModelConfig,
  RLConfig,
  SftConfig,
  TextConfig,
  TrainConfig,
)
from o1jax.io.hf_tokenizer import HFTokenizer
from o1jax.io.tokenizer import load_tokenizer
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.rollout import setup
from o1jax.train import train

pytestmark = pytest.mark.full


def config(place: pathlib.Path) -> TrainConfig:
  text = TextConfig(str(place / "model"), template="chat", enable_thinking=False)
  return TrainConfig(
    name="tiny",
    out=str(place),
    task=ArithmeticConfig(digits=1, size=24, held_out=6, text=text, data_dir=str(place)),
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    mesh=MeshConfig(data=1),
    sft=SftConfig(steps=0),
    rl=RLConfig(steps=1, prompts=8, samples=4, max_prompt=64, max_tokens=128),
    eval=EvalConfig(
      problems=1, final_problems=1, samples=1, control_samples=1, batch=8, max_tokens=8, bootstrap=50
    ),
    log=LogConfig(progress=False),
    controls=False,
  )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  place = tmp_path_factory.mktemp("chat")
  write_folder(place / "model", config={"eos_token": "<|im_end|>"})
  assert train(config(place), resume=False) == 0
  return place


def test_prompts_are_rendered_once_and_their_padding_is_masked(finished) -> None:
  runtime = setup.prepare(config(finished))
  task, tokenizer = runtime.task, runtime.task.tokenizer
  assert task.stop_tokens == (IM_END, EOT) and tokenizer.pad == tokenizer.eos == IM_END
  batch = setup.prompt_rows(runtime, task.train[:8])
  for row, mask, problem in zip(np.asarray(batch.tokens), np.asarray(batch.mask), task.train):
    text = f"<|im_start|>user\n{problem.prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert task.question(problem) == text and row[mask].tolist() == tokenizer.encode(text)
    assert IM_END in row[mask]  # the token that pads stands within the prompt as well


def test_a_response_ends_at_either_end_of_text(finished) -> None:
  runtime, params, _ = setup.load_run(str(finished / "tiny"))
  task = runtime.task
  cfg = SampleConfig(128, task.stop_tokens, pad=task.tokenizer.pad)
  with setup.in_mesh(runtime):
    batch = setup.batch_of(runtime, task.train[:8])
    rollout = generate(
      params, batch, jax.random.key(0), jnp.float32(1.0), model=runtime.model, samples=8, cfg=cfg
    )
  rows = [row[keep] for row, keep in zip(np.asarray(rollout.tokens), np.asarray(rollout.is_action))]
  ends = {int(row[-1]) for row, done in zip(rows, np.asarray(rollout.finished)) if done}
  assert ends == {IM_END, EOT}
  assert not any(np.isin(row[:-1], task.stop_tokens).any() for row in rows)


def test_a_run_starts_from_one_with_such_a_tokenizer(finished) -> None:
  begun = dataclasses.replace(config(finished), name="next", init=InitConfig(str(finished / "tiny")))
  assert setup.prepare(begun).config.init.step == 1


def test_a_run_keeps_its_tokenizer_and_refuses_another(finished) -> None:
  kept = load_tokenizer(str(finished / "tiny" / "tokenizer"))
  assert isinstance(kept, HFTokenizer) and kept == load_tokenizer(str(finished / "model"))
  assert setup.check_resumed(setup.prepare(config(finished)), finished / "tiny") == 1
  generation = finished / "model" / "generation_config.json"
  before = generation.read_text()
  generation.write_text(json.dumps({"eos_token_id": IM_END}))
  with pytest.raises(ConfigError, match="tiny/tokenizer: is not the tokenizer that the task has now$"):
    setup.check_resumed(setup.prepare(config(finished)), finished / "tiny")
  generation.write_text(before)
