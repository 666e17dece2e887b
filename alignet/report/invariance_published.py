"""What Nanda et al. (2023) print of identically represented inputs: other networks, images and distances."""

from __future__ import annotations

from collections.abc import Sequence

from alignet.report.blocks import Cell, Table

WHOSE = (
    "As Nanda et al. (AAAI 2023) print it: 100 targets, other networks and images, no result of this run, and not to "
    "be compared with its numbers."
)
CLAIMS = (
    "Tables 1 and 2 are pictures in the paper, so that their numbers do not stand here. What the text says of them: "
    "people and LPIPS rank networks alike in both tasks, annotators differ little, and the hard clustering lowers "
    "accuracy but keeps the order.",
    "By the text, a human-leaning method overestimates alignment and an adversarial one makes almost all networks look "
    "bad; networks should be compared by images inverted without a regulariser.",
    "By the published code, only the distance that was optimised enters table 3: where four distances gave 93, 1, 81 "
    "and 56%, 1.00 is printed. All six values of CIFAR10 from N(0, 1) that are not 0 can be the mean and SD of three "
    "whole numbers, and of no four.",
)
SEEDS = (  # model, N(0, 1), N(0, .01)
    ("CIFAR10: ResNet18, standard", "1.33±1.89", "0.00±0.00"),
    ("CIFAR10: VGG16, standard", "0.00±0.00", "0.00±0.00"),
    ("CIFAR10: InceptionV3, standard", "0.33±0.47", "0.00±0.00"),
    ("CIFAR10: DenseNet121, standard", "0.00±0.00", "0.00±0.00"),
    ("CIFAR10: ResNet18, AT (l2) eps = 1", "0.33±0.47", "1.00±0.00"),
    ("CIFAR10: VGG16, AT (l2) eps = 1", "1.00±1.41", "1.00±0.00"),
    ("CIFAR10: InceptionV3, AT (l2) eps = 1", "3.00±4.24", "0.00±0.00"),
    ("CIFAR10: DenseNet121, AT (l2) eps = 1", "1.33±1.89", "1.00±0.00"),
    ("CIFAR10: ResNet18, supervised, SimCLR augmentation", "0.00±0.00", "0.00±0.00"),
    ("CIFAR10: SimCLR ResNet18, standard augmentation", "0.00±0.00", "1.00±0.00"),
    ("CIFAR10: SimCLR ResNet18, without colour", "0.00±0.00", "0.00±0.00"),
    ("CIFAR10: SimCLR ResNet18, standard and adversarial (l2) eps = 1", "0.00±0.00", "0.00±0.00"),
    ("ImageNet: ResNet18, standard", "0.00±0.00", "3.00±0.00"),
    ("ImageNet: ResNet50, standard", "0.00±0.00", "3.50±0.50"),
    ("ImageNet: VGG16, standard", "0.00±0.00", "3.00±2.00"),
    ("ImageNet: ResNet18, AT (l2) eps = 3", "0.33±0.47", "2.50±1.50"),
    ("ImageNet: ResNet50, AT (l2) eps = 3", "14.00±3.74", "3.50±0.50"),
    ("ImageNet: VGG16, AT (l2) eps = 3", "11.00±3.74", "4.50±1.50"),
)
TARGETS = (  # model, 2AFC by people: targets of the data, of N(0, 1), of N(0.5, 2)
    ("CIFAR10: ResNet18", "96.00±2.55", "31.053±15.912", "64.386±7.310"),
    ("CIFAR10: VGG16", "38.83±7.59", "0.351±0.496", "0.351±0.496"),
    ("CIFAR10: InceptionV3", "82.00±8.44", "28.772±20.476", "2.105±1.549"),
    ("CIFAR10: DenseNet121", "98.67±0.24", "60.702±11.413", "68.947±16.119"),
    ("ImageNet: ResNet18", "93.17±5.95", "28.748±34.491", "65.079±5.616"),
    ("ImageNet: ResNet50", "99.50±0.00", "70.745±7.409", "93.617±9.027"),
    ("ImageNet: VGG16", "95.50±2.12", "29.806±19.704", "46.914±13.827"),
)
CIFAR10 = (  # training and augmentation, ResNet18, DenseNet121, VGG16, InceptionV3
    ("adversarial training, usual", "76.50±15.91", "93.50±9.60", "0.25±0.43", "24.25±25.17"),
    ("adversarial training, none", "30.00±12.02", "93.75±8.20", "1.00±1.73", "12.25±20.08"),
    ("standard, strong", "0.00±0.00", "1.00±1.73", "0.00±0.00", "0.00±0.00"),
    ("standard, usual", "0.00±0.00", "0.00±0.00", "0.00±0.00", "0.00±0.00"),
)
FURTHER = (  # data set and augmentation, ResNet18, DenseNet121, VGG16, InceptionV3, ResNet50
    ("CIFAR100, usual", "82.50±20.85", "88.00±14.51", "58.75±32.15", "69.25±26.39", ""),
    ("CIFAR100, none", "81.50±15.58", "89.75±15.01", "46.25±32.25", "84.75±13.70", ""),
    ("ImageNet, usual", "13.00±22.52", "", "", "", "0.00±0.00"),
    ("ImageNet, none", "0.75±1.30", "", "", "", "0.00±0.00"),
)
_FOUR = ("ResNet18", "DenseNet121", "VGG16", "InceptionV3")


def published() -> list[Table]:
    """The paper's tables 3 to 6, as printed."""
    adversarial = (
        "AT: adversarial training. 2AFC by LPIPS of images inverted by the adversarial method, by the seed."
    )
    people = (
        "2AFC by people, of images inverted without a regulariser, for targets out of the data and targets that are "
        "noise. The text does not say which training these networks had."
    )
    augmented = "2AFC by LPIPS of images inverted without a regulariser, by training and data augmentation."
    return [
        _table(3, "adversarial method", ("", "seed N(0, 1), %", "seed N(0, .01), %"), SEEDS, adversarial, CLAIMS),
        _table(
            4, "targets that are noise", ("", "targets of the data, %", "N(0, 1), %", "N(0.5, 2), %"), TARGETS, people
        ),
        _table(5, "augmentation, CIFAR10", ("", *_FOUR), CIFAR10, augmented),
        _table(6, "augmentation, adversarially trained networks", ("", *_FOUR, "ResNet50"), FURTHER, augmented),
    ]  # fmt: skip


def _table(
    number: int, what: str, header: Sequence[str], rows: Sequence[Sequence[str]], about: str, notes: Sequence[str] = ()
) -> Table:  # fmt: skip
    cells: list[list[Cell | str]] = [
        [name, *(Cell(text or "–", text or None, published=True) for text in values)]
        for name, *values in rows
    ]
    return Table(
        f"invariance_published_{number}", f"Published values: table {number}, {what}", header, cells,
        f"{about} Percent. {WHOSE}", notes=notes, folded=True,
    )  # fmt: skip
