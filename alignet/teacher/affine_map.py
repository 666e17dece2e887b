"""The affine map of features that a distillation learns, and its file: the npz of gLocal and thingsvision.

Shape suffixes: m objects, p features.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alignet.data.npy import read_npz

_ROWS = 1 << 16  # mapped at a time: a copy of so many standardised rows is held


@dataclass(frozen=True)
class AffineMap:
    """x -> ((x - mean) / std) @ weights + bias, for features x (m, p).

    weights: (p, p) float32, the transpose of W in eq. 3. bias: (p,) float32. mean, std: () or (p,) float32.
    """

    weights: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def apply(self, features: Tensor) -> Tensor:
        """Mapped features (m, p) float32 of features (m, p)."""
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise ValueError(
                f"affine map: expected features of shape (m, {len(self.weights)}), found "
                f"{tuple(features.shape)}; apply it to the backbone that it was learned on."
            )
        parts = [
            ((rows.float() - self.mean) / self.std) @ self.weights + self.bias
            for rows in features.split(_ROWS)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def save_npz(self, path: Path) -> None:
        """Write in the format of gLocal and thingsvision: `weights`, `bias`, and scalar `mean`, `std`.

        Per-feature mean and std are folded into weights and bias (then mean is 0 and std 1).
        """
        folded = self if self.mean.ndim == 0 and self.std.ndim == 0 else self._folded()
        arrays = {name: getattr(folded, name).numpy() for name in ("weights", "bias", "mean", "std")}
        temporary = Path(f"{path}.tmp")
        with open(temporary, "wb") as handle:
            np.savez(handle, **arrays)
        os.replace(temporary, path)

    def _folded(self) -> AffineMap:
        weights, mean, std = self.weights.double(), self.mean.double(), self.std.double()
        scaled = weights / std.expand(len(weights)).unsqueeze(1)
        bias = self.bias.double() - mean.expand(len(weights)) @ scaled
        return AffineMap(scaled.float(), bias.float(), torch.tensor(0.0), torch.tensor(1.0))

    @staticmethod
    def load_npz(path: Path) -> AffineMap:
        """Read that format: float32 whatever the file's dtype. `bias` may be absent (then 0).

        `mean` and `std` hold one number each; both may be absent, which leaves features unstandardised (0, 1).
        Raises ValueError for a damaged file, for arrays of other names, for shapes that do not fit, for a std
        that is not above 0, and for NaN.
        """
        arrays = read_npz(path)
        _check_npz(path, arrays)
        tensors = {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()}
        weights = tensors["weights"]
        bias = tensors.get("bias", torch.zeros(len(weights)))
        mean, std = tensors.get("mean", torch.tensor(0.0)), tensors.get("std", torch.tensor(1.0))
        return AffineMap(weights, bias, mean.reshape(()), std.reshape(()))

    @staticmethod
    def identity(width: int) -> AffineMap:
        """The map that leaves features of this width as they are."""
        return AffineMap(torch.eye(width), torch.zeros(width), torch.tensor(0.0), torch.tensor(1.0))


def _check_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """ValueError unless these are the arrays of a gLocal or thingsvision transform."""
    names = set(arrays)
    if (
        "weights" not in names
        or names - {"weights", "bias", "mean", "std"}
        or len(names & {"mean", "std"}) == 1
    ):
        raise ValueError(
            f"{path}: expected arrays weights, maybe bias, and mean and std (both or neither), found "
            f"{', '.join(sorted(names)) or 'none'}; give an npz written by gLocal, thingsvision or alignet."
        )
    width = arrays["weights"].shape[0] if arrays["weights"].ndim else 0
    fits: dict[str, list[tuple[int, ...]]] = {"weights": [(width, width)], "bias": [(width,)]}
    fits |= {"mean": [(), (1,)], "std": [(), (1,)]}
    if not width or any(array.shape not in fits[name] for name, array in arrays.items()):
        raise ValueError(
            f"{path}: expected weights (p, p), bias (p,), scalar mean and std, found "
            f"{', '.join(f'{name} {array.shape}' for name, array in arrays.items())}; export the map again."
        )
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating) and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{path}: expected numbers as {name}, found dtype {array.dtype}; save float32.")
        with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
            narrow = np.asarray(array, np.float32)
        if not np.isfinite(narrow).all():
            raise ValueError(f"{path}: expected finite {name}, found NaN or infinity; export the map again.")
        if name == "std" and not narrow.item() > 0:
            raise ValueError(
                f"{path}: expected a std above 0, found {narrow.item():g}; save the standard deviation."
            )
