"""Networks whose smallest perturbations are known, as `Classifier`s of pixels in [0, 1]."""

import torch
from torch import nn

from alignet.backbones import Backbone, Encoder
from alignet.backbones.gradients import Classifier

SIDE = 8


class Linear(nn.Module):
    """Logits of classes, linear in the pixels."""

    def __init__(self, classes=2, seed=0, scale=0.1):
        super().__init__()
        self.num_classes = classes
        self.head = nn.Linear(3 * SIDE * SIDE, classes)
        nn.init.normal_(self.head.weight, std=scale, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def get_classifier(self):
        return self.head

    def forward(self, images):
        return self.head(images.flatten(1))


class Sphere(nn.Module):
    """Two layers: class 1 leads where the squared distance from a grey image is at least radius squared."""

    num_classes = 2

    def __init__(self, radius=2.0):
        super().__init__()
        self.radius, self.head = radius, nn.Identity()

    def get_classifier(self):
        return nn.Linear(1, 2)

    def forward(self, images):
        far = ((images - 0.5) ** 2).flatten(1).sum(1)
        return torch.stack([torch.full_like(far, self.radius**2), far], 1)


class Staircase(Linear):
    """The linear network with logits rounded to whole numbers: its gradients are 0 everywhere."""

    def forward(self, images):
        return (super().forward(images) * 8).round()


class Constant(Linear):
    """Always the same answer, whatever is attacked."""

    def forward(self, images):
        return 0 * super().forward(images) + torch.tensor([1.0, 0.0])


class Broken(Linear):
    """Logits as the linear network's, and gradients that are not finite."""

    def forward(self, images):
        logits = super().forward(images)
        return logits + (torch.zeros_like(logits) * images.flatten(1).sum(1, keepdim=True)).sqrt()


def encoder(module):
    """An `Encoder` of SIDE x SIDE pixels without a normalisation."""
    config = {"input_size": (3, SIDE, SIDE), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    backbone = Backbone("timm", "toy", "random", {}, SIDE, "pooled")
    return Encoder(backbone, module.eval(), lambda image: image, lambda image: image, config, 2)


def classifier(module):
    """A `Classifier` of SIDE x SIDE pixels without a normalisation."""
    return Classifier(encoder(module))


def linear():
    """An encoder of the linear network of two classes, to be trained."""
    return encoder(Linear())


def convolutional(seed=0):
    """A small convolutional network of SIDE x SIDE pixels with smooth activations."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.GELU(), nn.Flatten(),
        nn.Linear(8 * SIDE * SIDE // 4, 5),
    )  # fmt: skip
    module.num_classes = 5
    module.get_classifier = lambda: module[-1]
    return classifier(module)


def pictures(count=8, seed=0, low=0.3, high=0.7):
    """Pixels (count, 3, SIDE, SIDE) float32 drawn uniformly from [low, high]."""
    drawn = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * drawn
