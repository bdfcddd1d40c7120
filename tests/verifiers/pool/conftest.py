"""What tests of the pool share."""

from collections.abc import Iterator

import pytest
from fake_verifiers import CATALOG

from o1jax.verifiers.pool import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
  """Two workers that serve `fake` and `sleepy`."""
  with Pool(["fake", "sleepy"], 2, catalog=CATALOG) as made:
    yield made
