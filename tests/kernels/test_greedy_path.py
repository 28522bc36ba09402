"""Greedy paths against brute force, shorter paths against the greedy ones."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nern.kernels import greedy_path as paths
from nern.kernels.bisection import bisected
from nern.kernels.distances import path_length, units
from nern.kernels.greedy_path import greedy_path, greedy_paths
from nern.kernels.two_opt import nearest, shorter_path
from nern.support.threads import Cancelled, advance, in_parallel


def distances(vectors: Tensor) -> np.ndarray:
    """[n, n]: |a − b| for numbers, else 1 − cos, and 1 where a vector is zero."""
    values = vectors.double().numpy()
    if values.shape[1] == 1:
        return np.abs(values - values.T)
    table = np.ones((len(values), len(values)))
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if a.any() and b.any():
                table[i, j] = 1 - (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b))
    return table


def brute_force(vectors: Tensor) -> list[int]:
    """Always on to the nearest unvisited vector; what is equal to 1e-12 is decided by the lowest index."""
    table, path = distances(vectors), [0]
    while len(path) < len(vectors):
        row = {j: table[path[-1], j] for j in range(len(vectors)) if j not in path}
        path.append(min(j for j, distance in row.items() if distance <= min(row.values()) + 1e-12))
    return path


def make(kind: str, count: int, dimensions: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, dimensions, generator=source)
    if kind == "ties":
        return torch.randint(-1, 2, (count, dimensions), generator=source).float()
    if kind == "zeros":
        return normal * (torch.rand(count, 1, generator=source) > 0.4)
    if kind == "duplicates":  # some exact, some to rounding: multiples of one vector are at distance 0 of each other
        rows = torch.randint(max(1, count // 5), (count,), generator=source)
        return normal[rows] * torch.randint(1, 4, (count, 1), generator=source)
    if kind == "sparse":
        return normal * (torch.rand(count, dimensions, generator=source) > 0.7)
    if kind == "tiny":
        return normal * 1e-12
    return normal


KINDS = ("normal", "ties", "zeros", "duplicates", "sparse", "tiny")


@pytest.fixture(params=["table", "tree"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small sets are compared with all their members; this makes the method for large ones take them, too."""
    if request.param == "tree":
        monkeypatch.setattr(paths, "_FEW", 2)
        monkeypatch.setattr(paths, "_TABLE", 4)
        monkeypatch.setattr(paths, "_CHUNK", 7)
    return str(request.param)


@pytest.mark.parametrize("dimensions", [1, 2, 9, 25, 49, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_path_is_the_brute_force_one(method: str, kind: str, dimensions: int) -> None:
    for seed, count in enumerate((3, 40, 140)):
        vectors = make(kind, count, dimensions, seed)
        assert greedy_path(vectors).tolist() == brute_force(vectors)


@given(st.integers(1, 60), st.sampled_from([1, 2, 3, 9, 17]), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_any_greedy_path_is_the_brute_force_one(count: int, dimensions: int, kind: str, seed: int) -> None:
    vectors = make(kind, count, dimensions, seed)
    expected = brute_force(vectors)
    assert greedy_path(vectors).tolist() == expected
    few, paths._FEW = paths._FEW, 2
    try:
        assert greedy_path(vectors).tolist() == expected
    finally:
        paths._FEW = few


def test_tree_and_table_agree_where_the_tree_is_made_anew_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = make("normal", 1800, 9, 0)
    vectors[::5] = vectors[3]
    vectors[::7] = 0
    by_tree = greedy_path(vectors)
    monkeypatch.setattr(paths, "_FEW", 2000)
    assert torch.equal(greedy_path(vectors), by_tree)


# -- many vectors of many dimensions -----------------------------------------------------------------------------------


def clusters(count: int, dimensions: int, seed: int) -> Tensor:
    """Vectors around a few directions, in mixed order."""
    source = torch.Generator().manual_seed(seed)
    directions = torch.randn(6, dimensions, generator=source)
    return directions[torch.randint(6, (count,), generator=source)] + 0.3 * torch.randn(count, dimensions, generator=source)


@given(st.integers(1, 200), st.sampled_from([1, 17, 40]), st.sampled_from(KINDS), st.integers(0, 2**20), st.integers(1, 50))
def test_parts_hold_every_vector_once_and_are_about_equally_large(count: int, dimensions: int, kind: str, seed: int, most: int) -> None:
    parts = bisected(make(kind, count, dimensions, seed).double().numpy(), most)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert max(map(len, parts)) <= most
    assert len(parts) == 1 or min(map(len, parts)) >= most // 2


def test_parts_are_cut_across_the_direction_in_which_vectors_differ_most() -> None:
    points = np.random.default_rng(0).standard_normal((400, 20))
    points[:, 7] += 40 * (np.arange(400) % 2)
    assert sorted(part.tolist() for part in bisected(points, 200)) == [list(range(0, 400, 2)), list(range(1, 400, 2))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_through_parts_is_a_permutation_from_vector_0_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PART", 16)
    for seed, count in enumerate((3, 17, 140)):
        path = greedy_path(make(kind, count, 25, seed)).tolist()
        assert path[0] == 0
        assert sorted(path) == list(range(count))


def test_a_path_through_parts_is_nearly_as_short_as_the_greedy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        vectors = clusters(300, 25, seed)
        monkeypatch.setattr(paths, "PART", 4096)
        exact = path_length(vectors, greedy_path(vectors))
        monkeypatch.setattr(paths, "PART", 50)
        in_parts = path_length(vectors, greedy_path(vectors))
        assert exact <= in_parts <= exact + 0.2 * (path_length(vectors) - exact)


def test_no_vector_is_compared_with_more_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the time below quadratic."""
    sizes: list[int] = []

    def walk(points: np.ndarray) -> np.ndarray:
        sizes.append(points.shape[1])
        return np.arange(points.shape[1])[None]

    monkeypatch.setattr(paths, "_walk_table", walk)
    greedy_path(make("normal", 3 * 4096, 17, 0))
    assert sum(sizes) == 3 * 4096
    assert max(sizes) <= 4096


def test_near_vectors_of_many_dimensions_are_found_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nern.kernels.two_opt.PART", 100)
    vectors = clusters(300, 25, 0)
    neighbours = nearest(units(vectors.double().numpy()), 4)
    table = distances(vectors)
    assert not (neighbours == np.arange(300)[:, None]).any()
    assert np.take_along_axis(table, neighbours, 1).mean() < 0.5 * table.mean()


def test_scaling_vectors_changes_no_path() -> None:
    vectors = make("normal", 200, 9, 1)
    assert torch.equal(greedy_path(vectors), greedy_path(vectors * 2.0 ** torch.randint(-9, 9, (200, 1))))


def test_each_set_of_vectors_has_a_path_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = torch.stack([make(kind, 30, 9, 5) for kind in KINDS])
    monkeypatch.setattr(paths, "_TABLE", 2 * 30**2)
    assert greedy_paths(sets).tolist() == [brute_force(vectors) for vectors in sets]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_paths_through_two_vectors_or_fewer_keep_their_order(count: int) -> None:
    assert greedy_path(torch.randn(count, 9)).tolist() == list(range(count))
    assert shorter_path(torch.randn(count, 9), torch.arange(count)).tolist() == list(range(count))


def test_vectors_must_be_a_table() -> None:
    with pytest.raises(ValueError, match=r"vectors must be \[n, d\], got \[3\]"):
        greedy_path(torch.zeros(3))
    with pytest.raises(ValueError, match=r"vectors must be \[b, n, d\], got \[3, 2\]"):
        greedy_paths(torch.zeros(3, 2))


def test_path_length_adds_up_distances() -> None:
    for dimensions in (1, 9):
        vectors = make("normal", 20, dimensions, 2)
        path, table = torch.randperm(20).tolist(), distances(vectors)
        expected = sum(table[a, b] for a, b in pairwise(path))
        assert path_length(vectors, torch.tensor(path)) == pytest.approx(expected, abs=1e-9)


# -- local search ----------------------------------------------------------------------------------------------------


@given(st.integers(3, 70), st.sampled_from([1, 2, 9, 20]), st.sampled_from(KINDS), st.integers(0, 2**20), st.integers(1, 9))
def test_local_search_never_makes_a_path_longer(count: int, dimensions: int, kind: str, seed: int, neighbours: int) -> None:
    vectors = make(kind, count, dimensions, seed)
    greedy = greedy_path(vectors)
    shorter = shorter_path(vectors, greedy, neighbours, rounds=5)
    table = distances(vectors)
    lengths = [sum(table[a, b] for a, b in pairwise(path)) for path in (greedy.tolist(), shorter.tolist())]
    assert sorted(shorter.tolist()) == list(range(count))
    assert lengths[1] <= lengths[0] + 1e-9


def test_local_search_leaves_no_reversal_that_would_help() -> None:
    vectors = make("normal", 60, 4, 3)
    path = shorter_path(vectors, torch.randperm(60, generator=torch.Generator().manual_seed(0)), neighbours=59, rounds=1000).tolist()
    table = distances(vectors)
    orders = [path, *(path[:i] + path[i:j][::-1] + path[j:] for i in range(60) for j in range(i + 2, 61))]
    lengths = [sum(table[a, b] for a, b in pairwise(order)) for order in orders]
    assert min(lengths) >= lengths[0] - 1e-8


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("to", [0, 5, 20, 27])
def test_local_search_puts_a_segment_back_in_its_place(size: int, reverse: bool, to: int) -> None:
    angles = torch.linspace(0, 3, 30, dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    segment, rest = list(range(10, 10 + size)), [i for i in range(30) if not 10 <= i < 10 + size]
    path = rest[:to] + segment[:: -1 if reverse else 1] + rest[to:]
    improved = shorter_path(vectors, torch.tensor(path), neighbours=4).tolist()
    assert improved in (list(range(30)), list(range(30))[::-1])


def test_shortest_path_through_numbers_is_found() -> None:
    numbers = make("normal", 50, 1, 4)
    assert path_length(numbers, shorter_path(numbers, greedy_path(numbers))) == pytest.approx(float(numbers.max() - numbers.min()))


def test_local_search_shortens_real_paths(resnet20_weights: Path) -> None:
    state = torch.load(resnet20_weights, map_location="cpu", weights_only=True)["state_dict"]
    kernels = state["module.layer2.1.conv1.weight"].reshape(-1, 9)
    greedy = greedy_path(kernels)
    shorter = shorter_path(kernels, greedy)
    assert torch.equal(shorter, shorter_path(kernels, greedy))
    assert path_length(kernels, shorter) < 0.97 * path_length(kernels, greedy)


@pytest.mark.parametrize("dimensions", [3, 40])
def test_nearest_gives_the_closest_other_vectors(dimensions: int) -> None:
    points = paths.units(make("normal", 50, dimensions, 6).double().numpy())
    neighbours, table = nearest(points, 6), 1 - points @ points.T
    np.fill_diagonal(table, np.inf)
    for row, near in enumerate(neighbours):
        assert set(near) == set(np.argsort(table[row])[:6])


# -- threads ---------------------------------------------------------------------------------------------------------


def test_jobs_report_and_keep_their_order() -> None:
    reports: list[int] = []

    def job(value: int) -> int:
        advance(value)
        return 10 * value

    assert in_parallel([lambda value=value: job(value) for value in range(5)], reports.append) == [0, 10, 20, 30, 40]
    assert reports[-1] == 10
    advance(1)  # outside of a job nobody listens


@pytest.mark.parametrize("where", ["report", "job"])
def test_an_error_ends_every_job(where: str) -> None:
    torch.set_num_threads(2)
    started, ended = threading.Event(), threading.Event()

    def endless() -> None:
        started.set()
        try:
            while True:
                advance(1)
                time.sleep(0.001)
        except Cancelled:
            ended.set()
            raise

    def failing() -> None:
        started.wait()
        if where == "job":
            raise KeyError("job")

    def report(done: int) -> None:
        if where == "report":
            raise KeyError("report")

    with pytest.raises(KeyError, match=where):
        in_parallel([endless, failing], report, every=0.01)
    assert ended.wait(5)
