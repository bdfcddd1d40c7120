"""A pretrained model learns to keep constraints by RL; what does it drop that its reward does not read?

Claim: 25 steps of outcome RL on a verifier of constraints raise how often SmolLM2-135M keeps them on held-out
  topics. Without regularisation the policy gives up what the verifier does not read, the topic; a KL to the
  base, or a reward that asks for the topic, keeps it.
Source: Tulu 3 (Lambert et al. 2024), RL with verifiable rewards on precise instruction following; the
  instructions are IFEval's (Zhou et al. 2023).
Command: bash scripts/smollm2.sh, which makes data/smollm2-135m and trains the default arm; then
  o1jax sweep experiments/smollm2_constraints.py [--full] for all arms
Expected: held-out accuracy rises by 0.35 or more, and `names_topic` stays at the base's with the KL of 0.1
  and falls without. Not yet seen: only the first three steps have been run (LOG.md, 2026-12-01), in which
  accuracy rose and `names_topic` fell even with the KL of 0.1.

The diagnosis of the first step is of the base model: `held_out/*` on held-out topics, `ood/wordings/*` on
constraints put in other words, `ood/kinds/*` on kinds of constraint that are never trained on. A kind whose
groups hold no right answer does not move.
"""

import dataclasses

from o1jax.config import (
  PRESETS,
  Arm,
  Check,
  CheckpointConfig,
  Claim,
  ConstrainedWritingConfig,
  DiagnosticsConfig,
  EvalConfig,
  InitConfig,
  KLConfig,
  LogConfig,
  OptimConfig,
  RLConfig,
  SweepConfig,
  TextConfig,
  TrainConfig,
)

FOLDER = "data/smollm2-135m"  # what scripts/smollm2.sh writes
STRENGTHS = (0.0, 0.03, 0.1, 0.3)


def get_config() -> TrainConfig:
  """The default arm: an exact KL to the base model over the vocabulary, in the loss."""
  return TrainConfig(
    name="smollm2_constraints",
    model=dataclasses.replace(PRESETS["smollm2-135m"], scan_layers=True),
    task=ConstrainedWritingConfig(text=TextConfig(FOLDER, template="chat")),
    init=InitConfig(FOLDER),
    rl=RLConfig(
      steps=25,
      prompts=6,
      samples=8,
      max_prompt=56,
      max_tokens=32,
      temperature=0.7,
      micro_batches=6,
      kl=KLConfig(coef=0.1, estimator="reverse"),
      optim=OptimConfig(lr=3e-5),
    ),
    diagnostics=DiagnosticsConfig(every=25, problems=40, samples=4),
    eval=EvalConfig(final_problems=80, samples=4, batch=16, max_tokens=32, temperature=0.7),
    checkpoint=CheckpointConfig(every=10),
    log=LogConfig(rollouts_every=1, rollouts=8),
  )


def sweep(full: bool) -> SweepConfig:
  """No regularisation, three strengths of the KL, a reward that asks for the topic; in full three seeds."""
  claim = Claim(
    text="Outcome RL gives up what the verifier does not read, unless a KL or the reward keeps it",
    source="Tulu 3, Lambert et al. 2024",
    figure="verifiable rewards raise IFEval; too little KL over-optimises",
    checks=(
      Check("greater", "held_out/names_topic", ("kl=0.1", "none")),
      Check("greater", "held_out/names_topic", ("topic", "none")),
      Check("rising", "held_out/names_topic", ("none", *(f"kl={beta:g}" for beta in STRENGTHS[1:]))),
      Check("falling", "held_out/pass@1", ("none", *(f"kl={beta:g}" for beta in STRENGTHS[1:]))),
    ),
  )
  arms = (
    *(Arm(f"kl={beta:g}" if beta else "none", {"rl.kl.coef": beta}, strength=beta) for beta in STRENGTHS),
    Arm("topic", {"rl.kl.coef": 0.0, "task.topic": True}),
  )
  return SweepConfig(get_config(), arms, claim, seeds=(0, 1, 2) if full else (0,))
