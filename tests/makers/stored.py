"""What stages have stored, read back, and the network that they were given, loaded anew."""

import numpy as np

from alignet.backbones import Backbone, load_encoder


def shards(artifact, stage):
    """The arrays and ids of each shard of a stage."""
    for name in sorted(one for one in artifact.manifest["files"] if one.endswith(".npz")):
        with np.load(artifact.file(name), allow_pickle=False) as found:
            listing = artifact.file(name.replace(f"{stage}-", "ids-").replace(".npz", ".txt"))
            yield dict(found), listing.read_text().splitlines()


def student(chain):
    """The tiny world's student, loaded anew."""
    model = chain.config.student
    weights = chain.state("pretrain[student]").artifact.file("weights.safetensors")
    of_model = (model.library, model.architecture, str(weights), dict(model.model_args))
    return load_encoder(Backbone(*of_model, model.image_size, model.feature))
