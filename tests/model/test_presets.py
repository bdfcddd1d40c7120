"""Each preset has the number of parameters that its publisher states."""

import functools

import jax
import numpy as np
import pytest

from o1jax.config import PRESETS, replaced
from o1jax.model.transformer import Decoder, init_params

PUBLISHED = {
  "smollm2-135m": 134_515_008,
  "smollm2-360m": 361_821_120,
  "qwen2.5-0.5b": 494_032_768,
  "qwen2.5-1.5b": 1_543_714_304,
  "qwen2.5-7b": 7_615_616_512,
  "qwen3-0.6b": 596_049_920,
  "qwen3-1.7b": 1_720_574_976,
  "qwen3-8b": 8_190_735_360,
  "llama3.2-1b": 1_235_814_400,
  "llama3.2-3b": 3_212_749_824,
  "gemma2-2b": 2_614_341_888,
  "gemma3-1b": 999_885_952,
  "olmo2-1b": 1_484_916_736,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_number_of_parameters(name: str) -> None:
  config = replaced(PRESETS[name], {"scan_layers": True})
  config.validate("model")
  shapes = jax.eval_shape(functools.partial(init_params, Decoder(config)), jax.random.key(0))
  assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == PUBLISHED[name]
