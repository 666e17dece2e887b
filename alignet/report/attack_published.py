"""What Linsley et al. (2023) print of attacks, as the page shows it: other networks, images and units."""

from __future__ import annotations

from dataclasses import dataclass

from alignet.report.blocks import Cell, Table

CLAIMS = (
    "Perturbation tolerance: a harmonized ResNet50 14.69, an adversarially trained one 23.95. The published code "
    "attacks networks in different units of their inputs, so that these compare with no norm of pixels in [0, 1].",
    "Over networks, rank correlations: accuracy with tolerance .70, accuracy with alignment -.53, tolerance in l-inf "
    "with tolerance in l2 .72, Carlini and Wagner's attack with PGD .71 (tolerance) and .87 (alignment; 100 networks, "
    "100 images).",
    "CNNs against ViTs: T(122) = 9.12 (tolerance, ViTs higher) and -18.73 (alignment, CNNs higher). Of 127 CNNs and "
    "123 ViTs a two-sample test would have 248 degrees of freedom (Welch's test: fewer).",
    "Alignment of harmonized networks against the most aligned other one: T(999) = 15.63. It says that all attacks "
    "succeeded.",
    "The text does not say whether the human alignment of the harmonized networks is that of gradients or of attacks.",
)


@dataclass(frozen=True)
class Printed:
    """A network as the paper prints it; "" where it prints no number."""

    network: str
    weight: str  # lambda, of the loss on maps
    top1: str  # %
    human: str  # human alignment, %
    attack: str  # adversarial alignment, Spearman


PUBLISHED = (
    Printed("VGG16, harmonized", "2", "69.3", "61.5", ""),
    Printed("ResNet50, harmonized", "2", "77.17", "45.0", ""),
    Printed("EfficientNet-B0, harmonized", "20", "77.51", "52.3", ""),
    Printed("ViT-B16, harmonized", "5", "75.7", "72.6", ""),
    Printed("ConvNext-T, harmonized", "1", "75.9", "73.2", ""),
    Printed("ConvNext-T, harmonized", "2", "75.8", "73.3", ""),
    Printed("ConvNext-T, harmonized", "3", "75.8", "74.5", ""),
    Printed("ConvNext-T, harmonized", "5", "75.5", "72.1", ""),
    Printed("ConvNext-T, harmonized", "8", "75.6", "71.1", ""),
    Printed("ConvNext-T, harmonized", "10", "75.4", "73.2", ""),
    Printed("MaxViT-T, harmonized", "1", "78.6", "45.3", ""),
    Printed("MaxViT-T, harmonized", "2", "78.4", "46.8", ""),
    Printed("MaxViT-T, harmonized", "5", "78.5", "57.6", ""),
    Printed("MaxViT-T, harmonized", "10", "78.1", "59.0", ""),
    Printed("EVA giant 336, the most accurate", "", "89.57", "", "-.15"),
    Printed("MixNet-L", "", "78.98", "", ".38"),
)


def published() -> Table:
    """The paper's own values, which are of another scale."""
    rows = [
        [
            Cell(text or "–", text or None, published=True)
            for text in (one.network, one.weight, one.top1, one.human, one.attack)
        ]
        for one in PUBLISHED
    ]  # fmt: skip
    return Table(
        "attack_published", "Published values: attacks and people's maps",
        ["", "lambda", "ImageNet top-1, %", "human alignment, %", "adversarial alignment, rho"], rows,
        "As Linsley et al. (2023) print them, in Table S2 and the text: of ClickMe, of other networks and of another "
        "scale, no result of this run, and not to be compared with its numbers. – no number in the text.",
        notes=CLAIMS, folded=True,
    )  # fmt: skip
