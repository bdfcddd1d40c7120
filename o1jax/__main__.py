"""`python -m o1jax` is the `o1jax` command."""

import sys

from o1jax.cli import main

if __name__ == "__main__":
  sys.exit(main())
