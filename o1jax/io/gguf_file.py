"""GGUF files of the llama architecture (llama.cpp's format; extra `gguf`) as Hugging Face's files.

    file -> ModelConfig, tensors by Hugging Face's names, tokenizer.json and what stands beside it

Quantised tensors are dequantised to float32. llama.cpp turns neighbouring pairs of a head's rows, so that the
rows of queries and keys come permuted; they are put back. Left out: other architectures, scaled RoPE
(rope_freqs), SentencePiece vocabularies.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import gguf
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from o1jax.config import ConfigError, ModelConfig, require
from o1jax.io.json_rows import one_line
from o1jax.io.weights import Tensor
from o1jax.model.hf import layout

TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_TENSORS = {
  "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
# Keys of the architecture; another changes what is computed.
KEYS = frozenset(
  "attention.head_count attention.head_count_kv attention.key_length attention.layer_norm_rms_epsilon "
  "attention.value_length block_count context_length embedding_length feed_forward_length "
  "rope.dimension_count rope.freq_base vocab_size".split()
)
CONTROL, USER_DEFINED = 3, 4  # token types


class GGUFModel(NamedTuple):
  """What a file holds."""

  model: ModelConfig
  tensors: list[Tensor]
  fields: dict[str, Any]  # of config.json: ids and longest text
  files: dict[str, bytes]  # of the tokenizer, by name


def read_gguf(path: pathlib.Path) -> GGUFModel:
  """Reads a file; its tensors only when each is read. Raises ConfigError naming what is not supported."""
  try:
    reader = gguf.GGUFReader(path)
  except Exception as error:  # the library raises ValueError, IndexError or its own by where the file ends
    raise ConfigError(f"{path}: is no complete GGUF file: {one_line(error)}") from error
  table = {name: field.contents() for name, field in reader.fields.items()}
  kind = table.get("general.architecture")
  require(kind == "llama", str(path), f"general.architecture: {kind!r} is not supported; llama is")
  for name in table:
    known = not name.startswith("llama.") or name.removeprefix("llama.") in KEYS
    require(known, str(path), f"{name}: {table[name]!r} is not supported")
  try:
    model = _model(table, tied="output.weight" not in {tensor.name for tensor in reader.tensors})
    files, ids = _tokenizer_files(table, path)
    fields = {**ids, "max_position_embeddings": table["llama.context_length"]}
  except KeyError as error:
    raise ConfigError(f"{path}: {error.args[0]}: is missing") from error
  model.validate(f"{path}: model")
  return GGUFModel(model, _tensors(reader, model, path), fields, files)


def _model(table: dict[str, Any], tied: bool) -> ModelConfig:
  width, heads = table["llama.embedding_length"], table["llama.attention.head_count"]
  return ModelConfig(
    width=width,
    layers=table["llama.block_count"],
    heads=heads,
    kv_heads=table.get("llama.attention.head_count_kv", heads),
    head_dim=table.get("llama.attention.key_length", width // heads),
    mlp=table["llama.feed_forward_length"],
    vocab=len(table["tokenizer.ggml.tokens"]),
    norm_eps=_number(table["llama.attention.layer_norm_rms_epsilon"]),
    rope_theta=(_number(table["llama.rope.freq_base"]),),
    tied_head=tied,
  )


def _number(value: float) -> float:
  """The shortest decimal of a float32, as a model's authors wrote it: 1e-5, not 9.99999974e-06."""
  return float(str(np.float32(value)))


def _tensors(reader: Any, model: ModelConfig, path: pathlib.Path) -> list[Tensor]:
  """The model's tensors in its order. Raises ConfigError naming one that is missing, unknown or misshapen."""
  there = {_hf_name(tensor.name, path): tensor for tensor in reader.tensors}
  pieces = [piece for parts in layout(model).values() for piece in parts]
  unknown = there.keys() - {piece.tensor for piece in pieces}
  require(not unknown, str(path), f"tensor {min(unknown, default='')} is not supported")
  tensors = []
  for piece in pieces:
    require(piece.tensor in there, str(path), f"tensor {piece.tensor} is missing")
    shape = tuple(int(size) for size in reversed(there[piece.tensor].shape))
    other = f"tensor {piece.tensor} is {list(shape)}, and {list(piece.shape)} by the file's head"
    require(shape == piece.shape, str(path), other)
    tensors.append(Tensor(piece.tensor, shape, _reader(there[piece.tensor], model)))
  return tensors


def _hf_name(name: str, path: pathlib.Path) -> str:
  """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight. Raises ConfigError for an unknown name."""
  stem, _, kind = name.rpartition(".")
  block, _, layer = stem.rpartition(".")
  place = LAYER_TENSORS.get(layer) if block else TENSORS.get(stem)
  require(place is not None and kind == "weight", str(path), f"tensor {name} is not supported")
  number = block.removeprefix("blk.")
  return f"model.layers.{number}.{place}.weight" if block else f"{place}.weight"


def _reader(tensor: Any, model: ModelConfig) -> Any:
  """A function that dequantises a tensor."""
  heads = {"attn_q": model.heads, "attn_k": model.kv_heads}.get(tensor.name.split(".")[-2])

  def read() -> np.ndarray:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if heads is None:
      return values
    # Rows (pair, half) of a head -> rows (half, pair): here x[i] is paired with x[i + h/2].
    return values.reshape(heads, model.head_dim // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)

  return read


def _tokenizer_files(table: dict[str, Any], path: pathlib.Path) -> tuple[dict[str, bytes], dict[str, Any]]:
  """(tokenizer.json, tokenizer_config.json and generation_config.json; the special ids for config.json)."""
  kind, pre = table["tokenizer.ggml.model"], table.get("tokenizer.ggml.pre")
  require(kind == "gpt2", str(path), f"tokenizer.ggml.model: {kind!r} is not supported; gpt2 is")
  known = ", ".join(PRE_TOKENIZERS)
  require(
    pre in PRE_TOKENIZERS, str(path), f"tokenizer.ggml.pre: {pre!r} is not supported; there are {known}"
  )
  tokens = table["tokenizer.ggml.tokens"]
  merges = [tuple(merge.split(" ", 1)) for merge in table["tokenizer.ggml.merges"]]
  tokenizer = tokenizers.Tokenizer(
    models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=merges)
  )
  tokenizer.pre_tokenizer = PRE_TOKENIZERS[str(pre)]
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_tokens(list(_added(tokens, table["tokenizer.ggml.token_type"])))
  names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
  ids = {name: table.get(f"tokenizer.ggml.{theirs}_token_id") for name, theirs in names.items()}
  ids = {name: number for name, number in ids.items() if number is not None}
  config: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    **{f"{name}_token": tokens[number] for name, number in ids.items()},
  }
  if "tokenizer.chat_template" in table:
    config["chat_template"] = table["tokenizer.chat_template"]
  special = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad") if name in ids}
  files = {"tokenizer_config.json": config, "generation_config.json": special}
  encoded = {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in files.items()}
  return {"tokenizer.json": tokenizer.to_str(pretty=True).encode(), **encoded}, special


def _added(tokens: list[str], kinds: list[int]) -> Iterator[tokenizers.AddedToken]:
  """The tokens that are read before any merge."""
  for text, kind in zip(tokens, kinds, strict=True):
    if kind in (CONTROL, USER_DEFINED):
      yield tokenizers.AddedToken(text, special=kind == CONTROL, normalized=False)


PRE_TOKENIZERS = {
  "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
  "smollm": pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
  ),
}
