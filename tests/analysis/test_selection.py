"""Which particles a criterion names."""

import json

import numpy as np
import pytest

from cryorecon.analysis import selection
from cryorecon.errors import InputError

Z = np.array([[0.0, 1.0], [2.0, -1.0], [4.0, 0.5]])


def test_clusters_ranges_and_percentiles():
    assert selection.by_cluster(np.array([0, 2, 1, 2]), [2]).tolist() == [False, True, False, True]
    assert selection.by_range(np.arange(4.0), 1, 2).tolist() == [False, True, True, False]
    assert selection.by_percentile(np.arange(11.0), 0, 90).tolist() == [True] * 10 + [False]
    with pytest.raises(InputError, match="from 0 to 2, found 7"):
        selection.by_cluster(np.array([0, 1, 2]), [1, 7])


def test_a_lasso_need_not_be_convex():
    cup = np.array([[0, 0], [3, 0], [3, 3], [2, 3], [2, 1], [1, 1], [1, 3], [0, 3]], float)
    x, y = np.array([0.5, 1.5, 2.5, 1.5, 4.0]), np.array([2.0, 2.0, 2.0, 0.5, 1.0])
    assert selection.by_lasso(x, y, cup).tolist() == [True, False, True, True, False]
    assert selection.by_lasso(x, y, cup[::-1]).tolist() == [True, False, True, True, False]


def test_axes_have_names():
    assert selection.axis("z2", Z, -Z).tolist() == [1, -1, 0.5]
    assert selection.axis("PC1", Z, -Z).tolist() == [0, -2, -4]
    for name in ("pc3", "z0", "umap1", "pc", "2"):
        with pytest.raises(InputError, match="expected pc1 to pc2 or z1 to z2"):
            selection.axis(name, Z, Z)


@pytest.mark.parametrize("text", ["", "[]", '{"x": "pc1"}', '{"x": "pc1", "y": "pc2", "polygon": [[0, 1], [1, 0]]}',
                                  '{"x": "pc1", "y": "pc2", "polygon": [[0, 1], [1, NaN], [2, 2]]}'])
def test_other_files_are_no_lasso(tmp_path, text):
    path = tmp_path / "lasso.json"
    path.write_text(text)
    with pytest.raises(InputError, match="expected"):
        selection.read_lasso(path)


def test_a_lasso_is_read(tmp_path):
    path = tmp_path / "lasso.json"
    path.write_text(json.dumps({"x": "pc1", "y": "z2", "polygon": [[0, 0], [1, 0], [1, 1]]}))
    x, y, polygon = selection.read_lasso(path)
    assert (x, y, polygon.shape) == ("pc1", "z2", (3, 2))


def test_a_selection_may_list_particles(tmp_path):
    path = tmp_path / "selection.json"
    path.write_text('{"particles": [2, 0], "shown": 2, "of": 3}')
    assert selection.by_selection_file(path, Z, Z).tolist() == [True, False, True]
    path.write_text('{"x": "z1", "y": "z2", "polygon": [[1, -2], [3, -2], [3, 0], [1, 0]]}')
    assert selection.by_selection_file(path, Z, Z).tolist() == [False, True, False]


@pytest.mark.parametrize("held", ["[3]", "[-1]", "[true]", "[0.5]", "5", '"all"', "null"])
def test_particles_that_are_not_there_are_refused(tmp_path, held):
    path = tmp_path / "selection.json"
    path.write_text(f'{{"particles": {held}}}')
    with pytest.raises(InputError, match="whole numbers from 0 to 2"):
        selection.by_selection_file(path, Z, Z)
