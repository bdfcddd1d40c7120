"""GGUF files: a golden model written as llama.cpp's converter does comes back bitwise, with its tokenizer."""

import json
import pathlib
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from o1jax.cli import main
from o1jax.config import ConfigError
from o1jax.io.gguf_file import read_gguf
from o1jax.io.weights import read_model_config

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "hf" / "smollm2"
MODEL = read_model_config(GOLDEN)
# Ids: a control token, digits, letters, a space as byte-level BPE writes it, two merged pieces, filling.
TOKENS = ["<|end|>", *"0123456789", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "Ġab"]
TOKENS += [f"<filling {i}>" for i in range(MODEL.vocab - len(TOKENS))]
NAMES = {
  "embed_tokens": "token_embd", "input_layernorm": "attn_norm", "q_proj": "attn_q", "k_proj": "attn_k",
  "v_proj": "attn_v", "o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
  "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "norm": "output_norm",
}  # fmt: skip


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
  """A head's rows (half, pair) as llama.cpp has them: (pair, half)."""
  return rows.reshape(heads, 2, MODEL.head_dim // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write(path: pathlib.Path, architecture: str = "llama", **changes: Any) -> None:
  """The golden model as a GGUF file; `changes`: of its metadata, by method of the writer."""
  writer = gguf.GGUFWriter(path, architecture)
  numbers = {
    "context_length": 64, "embedding_length": MODEL.width, "block_count": MODEL.layers, "feed_forward_length": MODEL.mlp,
    "head_count": MODEL.heads, "head_count_kv": MODEL.kv_heads, "key_length": MODEL.head_dim, "rope_freq_base": 1e4,
    "layer_norm_rms_eps": MODEL.norm_eps, "tokenizer_model": "gpt2", "tokenizer_pre": "smollm", "token_list": TOKENS,
    "token_types": [3] + [1] * 40 + [4] * (len(TOKENS) - 41), "token_merges": ["a b", "Ġ ab"], "eos_token_id": 0,
    "chat_template": "{{ messages }}",
  }  # fmt: skip
  for name, value in {**numbers, **changes}.items():
    getattr(writer, f"add_{name}")(value)
  for name, array in safetensors.numpy.load_file(GOLDEN / "model.safetensors").items():
    stem = NAMES[name.split(".")[-2]]
    heads = {"attn_q": MODEL.heads, "attn_k": MODEL.kv_heads}.get(stem)
    block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
    writer.add_tensor(f"{block}{stem}.weight", array if heads is None else paired(array, heads))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def test_a_gguf_file_becomes_the_folder_that_it_was_made_from(tmp_path: pathlib.Path) -> None:
  write(tmp_path / "model.gguf")
  assert main(["convert", str(tmp_path / "model.gguf"), str(tmp_path / "out")]) == 0
  before = safetensors.numpy.load_file(GOLDEN / "model.safetensors")
  after = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
  assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
  assert read_model_config(tmp_path / "out") == MODEL
  config, tokens = (
    json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("config", "tokenizer_config")
  )
  assert config["eos_token_id"] == 0 and config["max_position_embeddings"] == 64
  assert tokens["eos_token"] == "<|end|>" and tokens["chat_template"] == "{{ messages }}"
  tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
  # Digits stand by themselves, a space belongs to the word behind it, a control token is one id.
  assert tokenizer.encode("ab ab42<|end|>").tokens == ["ab", "Ġab", "4", "2", "<|end|>"]
  assert tokenizer.decode([*tokenizer.encode("ab ab42").ids, 0]) == "ab ab42"


REFUSED = {
  "general.architecture: 'qwen2' is not supported": {"architecture": "qwen2"},
  "llama.expert_count: 8 is not supported": {"expert_count": 8},
  "tokenizer.ggml.model: 'llama' is not supported": {"tokenizer_model": "llama"},
  "tokenizer.ggml.pre: 'falcon' is not supported": {"tokenizer_pre": "falcon"},
  "tensor model.layers.0.mlp.gate_proj.weight is [24, 16], and [32, 16]": {"feed_forward_length": 32},
  "tensor model.layers.2.self_attn.q_proj.weight is missing": {"block_count": 3},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_supported_is_refused_by_its_name(why: str, tmp_path: pathlib.Path) -> None:
  write(tmp_path / "model.gguf", **REFUSED[why])
  with pytest.raises(ConfigError) as error:
    read_gguf(tmp_path / "model.gguf")
  assert str(error.value).startswith(f"{tmp_path / 'model.gguf'}: ") and why in str(error.value)


def test_a_file_that_is_cut_leaves_no_folder(tmp_path: pathlib.Path, capfd) -> None:
  write(tmp_path / "model.gguf")
  content = (tmp_path / "model.gguf").read_bytes()
  for size in (len(content) - 100, 1000, 0):
    (tmp_path / "model.gguf").write_bytes(content[:size])
    assert main(["convert", str(tmp_path / "model.gguf"), str(tmp_path / "out")]) == 2
    assert "model.gguf: is no complete GGUF file" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
