"""Proofs that two graphs compute the same, by running them side by side: for a cut, the pruned graph and the masked
original."""

from worker.engine.proof.comparison import Proof, ProofRun, compare
from worker.engine.proof.masking import maskable_original, masked_original
from worker.engine.proof.surgery import prove

__all__ = ["Proof", "ProofRun", "compare", "maskable_original", "masked_original", "prove"]
