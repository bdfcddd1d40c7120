"""Final answers of MATH and AIME style. `verify` is the verifier, the other files are its steps."""
