"""Two processes, on gloo, train against attacks as one does, and stop together."""

import numpy as np

from tests.attacks.many_robust import VARIANTS, loss_of, run, weights
from tests.pipeline.test_many_processes import finish, ranks_of_two


def test_two_processes_train_as_one_and_stop_together(ready, tmp_path):
    ranks = [
        ready.start("tests.attacks.many_robust", str(tmp_path), environment=environment)
        for environment in ranks_of_two()
    ]
    for status, _, err in map(finish, ranks):
        assert status == 0, err
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)  # replicas never drift apart
    for name in VARIANTS:
        alone = run(name)
        np.testing.assert_allclose(
            first[f"{name}.weights"], weights(alone), rtol=1e-3, atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(first[f"{name}.loss"], loss_of(alone), rtol=1e-4, err_msg=name)
    # signalled in step 2, in the middle of a batch that is replayed; both went on to the same bytes
    assert first["steps"] == 2
    np.testing.assert_array_equal(first["resumed"], first["free.weights"])
