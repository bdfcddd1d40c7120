"""Plain values through JSON and back."""

import json
from fractions import Fraction

import numpy as np
import pytest

from o1jax.tasks.dataset import from_plain, plain

VALUES = [
  None, True, 7, 2.5, "a", [1, [2]], (1, (2, "x")), {"a": 1}, {1: "a", (2, 3): [4]}, {1, 2}, frozenset({3}), Fraction(-1, 3), [], (), {},
  {"tuple": [1]}, {"x": None, "y": {"set": {5}}}, float("inf"), 10**40, "ﬁ\ud800",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_from_text_as_they_were(value):
  back = from_plain(json.loads(json.dumps(plain(value))))
  assert back == value and type(back) is type(value)


def test_numpy_scalars_become_pythons_and_other_objects_are_refused():
  back = plain([np.float64(0.5), np.str_("a"), np.int64(3), np.bool_(True)])
  assert back == [0.5, "a", 3, True] and list(map(type, back)) == [float, str, int, bool]
  with pytest.raises(TypeError, match="it holds a object"):
    plain({"a": [object()]})


def test_sets_have_one_order():
  words = [f"word {n}" for n in range(50)]
  assert plain(set(words)) == plain(set(words[::-1])) == {"set": sorted(words)}
