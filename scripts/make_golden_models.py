"""Derives the golden models of tests/model/test_hf.py from transformers (extra `parity`).

Reads no o1jax code.

  python scripts/make_golden_models.py [--out tests/data/golden/hf]

A folder a family: a tiny model as `save_pretrained` writes it, all its parameters random (norms and biases
too), and expected.safetensors: `tokens` and `mask` [rows, length], left-padded; `logits` of them; `greedy`,
the tokens that follow by greedy decoding. Rows are longer than the sliding window and than the length that
scaled RoPE starts from.
"""

import argparse
import pathlib

import torch
import transformers
from safetensors.torch import save_file

VOCAB, LENGTH, NEW, ROWS = 48, 14, 6, (14, 9, 4)
SHAPE = {
  "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 8, "max_position_embeddings": 64,
  "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
  "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0,
  "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
}  # fmt: skip
# Family -> (configuration, fields beside SHAPE)
FAMILIES = {
  "llama": ("LlamaConfig", {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
  "smollm2": ("LlamaConfig", {"tie_word_embeddings": True}),
  "qwen2": ("Qwen2Config", {"head_dim": None, "tie_word_embeddings": True}),
  "qwen3": ("Qwen3Config", {"tie_word_embeddings": False}),
  "gemma2": ("Gemma2Config", {"sliding_window": 4, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0,
                              "final_logit_softcapping": 3.0}),
  "gemma3": ("Gemma3TextConfig", {"sliding_window": 4, "query_pre_attn_scalar": 12, "num_hidden_layers": 3,
                                  "layer_types": [*["sliding_attention"] * 2, "full_attention"]}),
  "olmo2": ("Olmo2Config", {"head_dim": None}),
  "olmo3": ("Olmo3Config", {"head_dim": None, "sliding_window": 4,
                            "layer_types": ["sliding_attention", "full_attention"]}),
}  # fmt: skip
SHARDED = ("llama",)  # saved in several files


def made(kind, fields, seed):
  """A model of random parameters, large enough that every part of it moves the logits."""
  fields = {name: value for name, value in {**SHAPE, **fields}.items() if value is not None}
  config = getattr(transformers, kind)(**fields, attn_implementation="eager")
  model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
  rng = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      offset = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
      parameter.copy_(offset + 0.3 * torch.randn(parameter.shape, generator=rng))
  return model.eval()


def logits_of(model, tokens, mask):
  """Logits of left-padded rows, 0 on padding."""
  position = (mask.cumsum(1) - 1).clamp(min=0)
  logits = model(tokens, attention_mask=mask.long(), position_ids=position, use_cache=False).logits
  return torch.where(mask[..., None], logits, 0.0)


@torch.no_grad()
def expected(model, seed):
  """Tokens, mask, logits and greedy continuations, which no token ends."""
  rng = torch.Generator().manual_seed(seed)
  tokens = torch.randint(3, VOCAB, (len(ROWS), LENGTH), generator=rng)
  mask = torch.stack([torch.arange(LENGTH) >= LENGTH - length for length in ROWS])
  tokens = torch.where(mask, tokens, 0)
  record = {"tokens": tokens, "mask": mask, "logits": logits_of(model, tokens, mask)}
  for _ in range(NEW):
    best = logits_of(model, tokens, mask)[:, -1:].argmax(-1)
    tokens, mask = torch.cat([tokens, best], 1), torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
  return record | {"greedy": tokens[:, LENGTH:]}


def main():
  parser = argparse.ArgumentParser(description="Derives the golden models from transformers.")
  default = pathlib.Path(__file__).parents[1] / "tests" / "data" / "golden" / "hf"
  parser.add_argument("--out", type=pathlib.Path, default=default)
  out = parser.parse_args().out
  for seed, (name, (kind, fields)) in enumerate(FAMILIES.items()):
    model = made(kind, fields, seed)
    folder = out / name
    model.save_pretrained(folder, max_shard_size="8KB" if name in SHARDED else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({k: v.contiguous() for k, v in expected(model, seed).items()}, folder / "expected.safetensors")
    print(folder)


if __name__ == "__main__":
  main()
