"""The command `o1jax verify`: completions of a JSONL stream graded by a pool of verifiers."""
