"""Prompts with constraints that a program can check: IFEval's own, and sentences to write under one each."""
