"""Final answers of MATH and AIME style. `verify` is the verifier; the other files are its steps.

completion -> extract (answers as stated) -> read (text, units: their meaning) -> equal (to the gold one?)
"""
