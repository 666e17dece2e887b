"""Two processes, on gloo, train against attacks as one does, and stop together."""

import numpy as np

from tests.attacks.many_robust import VARIANTS, loss_of, run
from tests.makers.together import by_two, weights


def test_two_processes_train_as_one_and_stop_together(ready, tmp_path):
    found = by_two(
        ready, "tests.attacks.many_robust", tmp_path, "free"
    )  # stopped amid a batch that is replayed
    for name in VARIANTS:
        alone = run(name)
        np.testing.assert_allclose(
            found[f"{name}.weights"], weights(alone), rtol=1e-3, atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(found[f"{name}.loss"], loss_of(alone), rtol=1e-4, err_msg=name)
