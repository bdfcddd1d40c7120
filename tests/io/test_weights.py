"""Weights in Hugging Face's layout: read by device, written back bitwise, refused by name."""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from o1jax.config import ConfigError, MeshConfig, ModelConfig
from o1jax.io.weights import Weights, check_weights, load_params, read_model_config, tensors_of, write_tensors
from o1jax.model.hf import hf_config
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import param_shardings

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "hf"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir())
EIGHT, ONE = MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=1)


def like(model: ModelConfig, mesh: MeshConfig = ONE) -> Any:
  """Shapes and shardings of the model's parameters."""
  boxed = jax.eval_shape(functools.partial(init_params, Decoder(model)), jax.random.key(0))
  lies = param_shardings(boxed, make_mesh(mesh))
  place = lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)
  return jax.tree.map(place, nn.meta.unbox(boxed), lies)


def tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """All tensors of a folder's models."""
  files = sorted(folder.glob("model*.safetensors"))
  return {name: a for file in files for name, a in safetensors.numpy.load_file(file).items()}


def write_folder(folder: pathlib.Path, model: ModelConfig, params: Any, most: int = 2**30) -> None:
  folder.mkdir()
  write_tensors(folder, hf_config(model), tensors_of(model, params), most)


def equal(left: Any, right: Any) -> bool:
  return jax.tree.all(jax.tree.map(np.array_equal, left, right))


@pytest.mark.parametrize("scan_layers", [False, True])
def test_each_device_reads_its_own_part_alone(monkeypatch, scan_layers: bool) -> None:
  model = dataclasses.replace(read_model_config(GOLDEN / "qwen2"), scan_layers=scan_layers)
  sizes: list[int] = []
  plain = Weights.read

  def counted(self: Weights, tensor: str, part: tuple[slice, ...]) -> np.ndarray:
    sizes.append(plain(self, tensor, part).size)
    return plain(self, tensor, part)

  one = load_params(GOLDEN / "qwen2", model, like(model))
  monkeypatch.setattr(Weights, "read", counted)
  many = load_params(GOLDEN / "qwen2", model, like(model, EIGHT))
  assert equal(one, many)
  leaves = jax.tree.leaves(many)
  assert sum(sizes) == sum(shard.data.size for leaf in leaves for shard in leaf.addressable_shards)
  assert not many["embedding"].sharding.is_fully_replicated
  # No read is of more than a device's part of the largest array: host memory is about one shard.
  assert max(sizes) <= max(leaf.addressable_shards[0].data.size for leaf in leaves)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_bitwise(name: str, tmp_path: pathlib.Path) -> None:
  model = dataclasses.replace(read_model_config(GOLDEN / name), scan_layers=name == "gemma2")
  params = load_params(GOLDEN / name, model, like(model))
  write_folder(tmp_path / "out", model, params, most=8000)
  before, after = tensors(GOLDEN / name), tensors(tmp_path / "out")
  assert before.keys() == after.keys()
  assert all(before[t].dtype == after[t].dtype and np.array_equal(before[t], after[t]) for t in before)
  files = sorted((tmp_path / "out").glob("model*.safetensors"))
  assert len(files) > 1 and all(file.stat().st_size < 10_000 for file in files)
  assert dataclasses.replace(read_model_config(tmp_path / "out"), scan_layers=model.scan_layers) == model
  assert equal(params, load_params(tmp_path / "out", model, like(model)))


def test_bfloat16_is_kept_or_widened(tmp_path: pathlib.Path) -> None:
  narrow = dataclasses.replace(read_model_config(GOLDEN / "qwen2"), param_dtype="bfloat16")
  params = load_params(GOLDEN / "qwen2", narrow, like(narrow))
  assert params["embedding"].dtype == jnp.bfloat16 and params["final_norm"]["scale"].dtype == jnp.float32
  write_folder(tmp_path / "one", narrow, params)
  assert {a.dtype for a in tensors(tmp_path / "one").values()} == {np.dtype(jnp.bfloat16)}
  again = load_params(tmp_path / "one", narrow, like(narrow))
  write_folder(tmp_path / "two", narrow, again)
  assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
    tmp_path / "two" / "model.safetensors"
  ).read_bytes()
  wide = dataclasses.replace(narrow, param_dtype="float32")
  assert equal(load_params(tmp_path / "one", wide, like(wide)), again)


# Folders that are not as they should be


def rewritten(folder: pathlib.Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
  """The folder's tensors in one file, changed."""
  table = tensors(folder)
  change(table)
  safetensors.numpy.save_file(table, folder / "model.safetensors")


def cut(file: pathlib.Path) -> None:
  file.write_bytes(file.read_bytes()[:-5])


def edit_index(folder: pathlib.Path, tensor: str, file: str) -> None:
  path = folder / "model.safetensors.index.json"
  index = json.loads(path.read_text())
  index["weight_map"][tensor] = file
  path.write_text(json.dumps(index))


Q0, SECOND = "model.layers.0.self_attn.q_proj.weight", "model-00002-of-00004.safetensors"
BROKEN: list[tuple[str, str, Callable[[pathlib.Path], Any]]] = [
  ("llama", f"{SECOND}: is missing, and model.safetensors.index.json names it", lambda f: (f / SECOND).unlink()),
  ("llama", f"{SECOND}: is no complete safetensors file", lambda f: cut(f / SECOND)),
  ("llama", f"tensor {Q0} is missing", lambda f: edit_index(f, Q0, SECOND) or drop(f)),
  ("llama", "names tensor another, which no file has", lambda f: edit_index(f, "another", SECOND)),
  ("llama", "weight_map: names a file outside the folder", lambda f: edit_index(f, Q0, "../x.safetensors")),
  ("qwen2", "model.safetensors: is no complete safetensors file", lambda f: cut(f / "model.safetensors")),
  ("qwen2", "holds no weights: neither", lambda f: (f / "model.safetensors").unlink()),
  ("qwen2", f"tensor {Q0} is missing", lambda f: rewritten(f, lambda t: t.pop(Q0))),
  ("qwen2", "tensor extra.weight is not supported", lambda f: rewritten(f, lambda t: t.update({"extra.weight": t[Q0]}))),
  ("qwen2", f"tensor {Q0} is I8, not one of F32, BF16, F16",
   lambda f: rewritten(f, lambda t: t.update({Q0: t[Q0].astype(np.int8)}))),
  ("qwen2", f"tensor {Q0} is [8, 16], and [16, 16] by config.json",
   lambda f: rewritten(f, lambda t: t.update({Q0: t[Q0][:8].copy()}))),
  ("qwen2", "tensor lm_head.weight differs from model.embed_tokens.weight",
   lambda f: rewritten(f, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))),
  ("olmo2", "tensor lm_head.weight is missing", lambda f: rewritten(f, lambda t: t.pop("lm_head.weight"))),
]  # fmt: skip


def drop(folder: pathlib.Path) -> None:
  """The first tensor gone from its file and from the index."""
  path = folder / "model.safetensors.index.json"
  index = json.loads(path.read_text())
  del index["weight_map"][Q0]
  path.write_text(json.dumps(index))
  for file in folder.glob("model*.safetensors"):
    table = safetensors.numpy.load_file(file)
    table.pop(Q0, None)
    safetensors.numpy.save_file(table, file)


@pytest.mark.parametrize(("name", "why", "damage"), BROKEN)
def test_a_broken_folder_is_refused_by_name(name, why, damage, tmp_path: pathlib.Path) -> None:
  folder = tmp_path / name
  shutil.copytree(GOLDEN / name, folder)
  model = read_model_config(folder)
  check_weights(folder, model)
  damage(folder)
  with pytest.raises(ConfigError) as error:
    check_weights(folder, model)
  assert why in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_tied_head_that_is_stored_too_is_read_once(tmp_path: pathlib.Path) -> None:
  shutil.copytree(GOLDEN / "qwen2", tmp_path / "qwen2")
  rewritten(tmp_path / "qwen2", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
  model = read_model_config(tmp_path / "qwen2")
  assert equal(
    load_params(tmp_path / "qwen2", model, like(model)), load_params(GOLDEN / "qwen2", model, like(model))
  )
