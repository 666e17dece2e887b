"""The distribution over the three answers of every triplet, from the VICE posterior.

reads   vice, index[triplets]
writes  probabilities.npy: n x 3 float32, [p01, p02, p12] of the triplets' columns, odd one last
roles   one for each set of triplets
cost    seconds for a million triplets
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Average the softmax of relu'd dot products over posterior samples of the pruned embedding."""
    import numpy as np
    import torch

    from alignet.pipeline import payloads
    from alignet.triplets import entropy
    from alignet.vice.soft_labels import soft_labels

    with np.load(work.inputs["vice"].file("pruned.npz"), allow_pickle=False) as pruned:
        loc, scale = torch.from_numpy(pruned["pruned_loc"]), torch.from_numpy(pruned["pruned_scale"])
    triplets = torch.from_numpy(payloads.triplets(work, "triplets", len(loc)))
    labels = soft_labels(loc, scale, triplets, samples=work.section["samples"], seed=work.section["seed"])
    np.save(work.folder / "probabilities.npy", labels.numpy())
    return {
        "triplets": len(triplets),
        "mean_entropy_nats": entropy(labels.double()).mean().item(),
        "agreement_with_choices": (labels.argmax(1) == 0).double().mean().item(),
    }


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("soft_labels", __doc__ or "")
