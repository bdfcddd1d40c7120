"""Prompts become left-padded rows, and one that cannot names its problem."""

import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ConfigError, RLConfig
from o1jax.rl.experience import first_fit, make_packing, prompt_batch, response_width


def test_prompts_lie_at_the_right_end_of_their_rows() -> None:
  batch = prompt_batch([[5, 6], [7]], [2**32 - 1, 3], ["a", "b"], 3)
  np.testing.assert_array_equal(batch.tokens, [[0, 5, 6], [0, 0, 7]])
  np.testing.assert_array_equal(batch.mask, [[False, True, True], [False, False, True]])
  assert batch.problem_id.dtype == np.uint32 and batch.problem_id.tolist() == [2**32 - 1, 3]


@pytest.mark.parametrize(
  ("prompt", "message"),
  [
    ([], "prompt: problem 'b' has no prompt tokens"),
    ([5, 6, 7, 8], "rl.max_prompt: problem 'b' has 4 prompt tokens, the limit is 3"),
  ],
)
def test_a_prompt_that_fits_no_row_names_its_problem(prompt, message) -> None:
  with pytest.raises(ConfigError) as caught:
    prompt_batch([[5], prompt], [1, 2], ["a", "b"], 3)
  assert str(caught.value) == message


@pytest.mark.parametrize("multiple", [1, 16, 48])
@pytest.mark.parametrize("most", [1, 15, 16, 64, 96, 1000, 8192, 32768])
def test_the_update_has_six_widths_at_most(most, multiple) -> None:
  cfg = RLConfig(max_tokens=most, pad_multiple=multiple)
  widths = {longest: response_width(cfg, longest) for longest in range(1, most + 1, max(1, most // 200))}
  # Both sides of every place where the width changes.
  widths |= {
    longest: response_width(cfg, longest)
    for width in set(widths.values())
    for longest in (width, min(width + 1, most))
  }
  assert list(dict(sorted(widths.items())).values()) == sorted(widths.values())
  assert len(set(widths.values())) <= 6
  assert all(longest <= width <= most for longest, width in widths.items())
  assert all(width % multiple == 0 or width == most for width in widths.values())
  if most <= 6 * multiple:  # as little padding as there can be
    assert all(width - longest < multiple for longest, width in widths.items())


def test_the_longest_come_first_into_the_first_row_with_room() -> None:
  row, offset, segment = first_fit(jnp.asarray([3, 7, 2, 5, 4]), 3, 10)  # in the order 7, 5, 4, 3, 2
  np.testing.assert_array_equal(row, [0, 0, 2, 1, 1])
  np.testing.assert_array_equal(offset, [7, 0, 0, 0, 5])
  np.testing.assert_array_equal(segment, [2, 1, 1, 1, 2])


def test_a_completion_that_may_not_fit_is_refused() -> None:
  with pytest.raises(ValueError, match="rl.pack_length: a completion may have 17 tokens, a packed row 16"):
    make_packing(jnp.ones((4, 17), bool), 16, 2)
