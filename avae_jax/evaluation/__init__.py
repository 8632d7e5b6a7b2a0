"""Evaluation of trained runs: does the latent space match the prior, and what do samples cost."""

from avae_jax.evaluation.compare import comparison_page
from avae_jax.evaluation.evaluate import evaluate_run
from avae_jax.evaluation.verdict import Finding, judge, judge_codes

__all__ = ["Finding", "comparison_page", "evaluate_run", "judge", "judge_codes"]
