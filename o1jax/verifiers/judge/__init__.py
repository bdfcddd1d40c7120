"""A language model as the verifier. `judge` has prompts, votes and verdicts; `http` asks an endpoint."""
