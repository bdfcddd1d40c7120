"""IFEval's checkable instructions. `constraints` is the verifier, `instructions` holds the 25 checks."""
