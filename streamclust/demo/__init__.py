"""A small traffic case with known truth, drawn from nothing: what ``streamclust demo`` runs on."""

from streamclust.demo.case import draw_case
from streamclust.demo.truth import Agreement, agreement_with_truth, read_truth

__all__ = ["Agreement", "agreement_with_truth", "draw_case", "read_truth"]
