"""How each metric is printed: its title, its scale and decimals, and whether a larger value is better."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a metric is printed; `best` whether a larger value is better and the best student is marked."""

    title: str
    scale: float = 1.0
    decimals: int = 3
    best: bool = False

    def number(self, value: float) -> str:
        """A value of the metric as it is printed."""
        return f"{value * self.scale:.{self.decimals}f}"


STYLES = {
    "odd_one_out": Style("odd-one-out accuracy, %", 100, 1, True),
    "odd_one_out_cosine": Style("the same by cosine, %", 100, 1, True),
    "agreement": Style("agreement with the teacher, %", 100, 1, True),
    "agreement_rho": Style("similarities as the teacher's, rho", best=True),
    "rsa_spearman": Style("RSA, Spearman rho", best=True),
    "two_alternatives": Style("NIGHTS, agreement with people, %", 100, 1, True),
    "two_alternatives_cosine": Style("the same by cosine, %", 100, 1, True),
    "linear_probe": Style("linear probe, %", 100, 1, True),
    "top1": Style("ImageNet top-1, %", 100, 1, True),
    "top1_refit": Style("top-1, refitted head, %", 100, 1, True),
    "zero_shot": Style("zero-shot accuracy, %", 100, 1, True),
    "few_shot": Style("few-shot accuracy, %", 100, 1, True),
    "breeds": Style("BREEDS, other subclasses, %", 100, 1, True),
    "breeds_source": Style("BREEDS, the same subclasses, %", 100, 1, True),
    "transfer": Style("ImageNet probe carried over, %", 100, 1, True),
    "calibration_error": Style("calibration error"),
    "entropy_rho": Style("entropies as people's, rho", best=True),
    "triplet_entropy": Style("triplet entropy, nats"),
    "rt_spearman": Style("uncertainty with response times, rho", best=True),
    "disagreement_spearman": Style("uncertainty with disagreement, rho", best=True),
    "response_time": Style("response time, s", decimals=2),
    "answer_entropy": Style("people's disagreement, nats"),
    "where": Style("saliency as people's maps, rho", best=True),
    "where_of_ceiling": Style("the same, % of the ceiling", 100, 1, True),
    "centre_bias": Style("centre bias of maps, rho"),
    "accuracy": Style("accuracy on these images, %", 100, 1, True),
    "tolerance": Style("perturbation tolerance", best=True),
    "attack_alignment": Style("perturbations as people's maps, rho", best=True),
    "two": Style("inverted images nearer the target (2AFC), %", 100, 1, True),
    "match": Style("inverted images matched (clustering), %", 100, 1, True),
    "masked_area": Style("accuracy as pixels are revealed, area", best=True),
    "intact_accuracy": Style("accuracy on intact images, %", 100, 1),
    "human_distance": Style("distance from people's curve"),
    "human_ceiling": Style("people leave-one-out, %", 100, 1),
}
HIDDEN = (  # told in the notes of the scores they belong to, or on the page; kept in the JSON
    "ties", "rsa_p", "hierarchy_order", "hierarchy_subordinate", "hierarchy_basic", "hierarchy_superordinate",
    "hierarchy_across", "relations_nearer_answered", "relations_nearer_cluster_boundary", "relations_nearer_random",
    "participation_ratio", "changed_towards", "changed_against",
    "where_4x", "where_16x", "where_over_centre", "dice", "iou", "rollout", "split_half",
    "calibration_error_spread", "choice_nll", "kl_to_people",
    "tolerance_median", "tolerance_rms", "tolerance_8bit", "unbroken", "masked", "attack_alignment_max",
    "attack_alignment_mean", "attack_centre_bias", "attack_over_centre",
)  # fmt: skip


_INVERTED = re.compile(
    r"(\w+_)?(two|match|match_hard|error8?|matched8?)(_.+)?"
)  # of identically represented inputs


def style_of(metric: str) -> Style:
    """How a metric is printed; one without an own style by its name, with three decimals."""
    return STYLES.get(metric, Style(metric.replace("_", " ")))


def number(metric: str, value: float) -> str:
    """A value or a bound of a metric as the table prints it."""
    return style_of(metric).number(value)


def title_of(metric: str) -> str:
    """The metric in words, as it heads a column."""
    return style_of(metric).title


def better_if_larger(metric: str) -> bool:
    """Whether the table marks the best student row of this metric."""
    return style_of(metric).best


def hidden(metric: str) -> bool:
    """Whether the table leaves this metric to the notes.

    Of attacks also what further ones and each norm add, of inverted images what each distance and method adds.
    """
    if metric in HIDDEN or metric.startswith("robust_"):
        return True
    if metric not in STYLES and _INVERTED.fullmatch(metric):
        return True
    return metric.endswith(("_against", "_tolerance", "_alignment")) and metric != "attack_alignment"
