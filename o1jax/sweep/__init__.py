"""`o1jax sweep`: arms x seeds of one run; `run.py` is the flow."""
