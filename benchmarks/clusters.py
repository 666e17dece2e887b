"""k-means against faiss itself and scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignet.teacher.clusters import fit_clusters, inertia
from benchmarks.frame import Case, Floor, Side

THREADS = 2
ROWS_EACH = 256  # training rows a centroid: faiss's rule


def cases(quick: bool) -> Iterator[Case]:
    """200,000 x 256 rows in 500 clusters."""
    yield from _kmeans(*((20_000, 256, 50, 5) if quick else (200_000, 256, 500, 25)))


def _kmeans(m: int, p: int, k: int, iterations: int) -> Iterator[Case]:
    import faiss
    from sklearn.cluster import KMeans

    faiss.omp_set_num_threads(THREADS)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((m, p), dtype=np.float32)
    rows += 0.5 * generator.standard_normal((4 * k, p), dtype=np.float32)[generator.integers(0, 4 * k, m)]
    sample = np.empty(m, dtype=np.int32)
    faiss.rand_perm(faiss.swig_ptr(sample), m, 0)
    sample = sample[: ROWS_EACH * k]
    last: dict = {}

    def ours() -> None:
        last["ours"] = fit_clusters(
            rows, k=k, seed=0, iterations=iterations, threads=THREADS, sample=ROWS_EACH * k
        )

    def faiss_itself() -> None:
        kmeans = faiss.Kmeans(p, k, niter=iterations, nredo=1, seed=0)
        kmeans.train(rows)
        last["faiss"] = kmeans.centroids.copy(), kmeans.index.search(rows, 1)[1][:, 0]

    def scikit_learn() -> None:
        kmeans = KMeans(
            k, init="random", n_init=1, max_iter=iterations, tol=0, algorithm="lloyd", random_state=0
        )
        kmeans.fit(rows[sample])
        last["sklearn"] = kmeans, kmeans.predict(rows)

    def same() -> dict[str, float]:
        centroids, assignment = last["faiss"]
        assert (last["ours"].centroids == centroids).all()
        assert (last["ours"].assignment == assignment).all()
        return {"inertia": last["ours"].inertia}

    def as_good() -> dict[str, float]:
        kmeans, assignment = last["sklearn"]
        assert kmeans.n_iter_ == iterations
        theirs = inertia(rows, kmeans.cluster_centers_, assignment)
        assert abs(theirs / last["ours"].inertia - 1) < 0.01
        return {"inertia": last["ours"].inertia, "inertia of scikit-learn": theirs}

    products = 2 * p * k * (len(sample) * iterations + m)
    floor = Floor(operations=products, text="products of training rows and centroids, then of all rows")
    told = f"{iterations} iterations over a sample of {len(sample):,} rows, then all rows are assigned"
    yield Case(
        f"k-means {m:,} x {p}, k={k}, and faiss", "fit", Side("alignet", ours), Side("faiss.Kmeans", faiss_itself),
        0.95, floor, check=same,
        note=f"{told}; the same bits from both. Ours also checks the rows and sums the inertia",
    )  # fmt: skip
    yield Case(
        f"k-means {m:,} x {p}, k={k}, and scikit-learn", "fit", Side("alignet", ours),
        Side("KMeans(algorithm='lloyd')", scikit_learn), 1.1, floor, check=as_good,
        note=f"{told}; for both the same rows",
    )  # fmt: skip
