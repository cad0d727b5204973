import h5py
import numpy as np

from recloom.dataset.dataset import ALIGNED_FROM, ALIGNMENT
from recloom.dataset.mapped_arrays import mapped


def write(path, values):
    with h5py.File(path, "w", alignment_threshold=ALIGNED_FROM, alignment_interval=ALIGNMENT) as file:
        file["before"] = np.arange(7)
        file["values"] = values


def test_values_are_those_of_the_file_and_writing_to_them_changes_it_not(tmp_path):
    values = np.arange(60_000, dtype=np.int64).reshape(200, 300)
    write(tmp_path / "a.h5", values)
    with h5py.File(tmp_path / "a.h5") as file:
        found = mapped(file["values"])
    np.testing.assert_array_equal(found, values)
    assert not found.flags.owndata
    found[:] = 0
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(mapped(file["values"]), values)


def test_a_file_that_is_replaced_at_any_moment_is_not_mixed_with_the_one_that_took_its_name(tmp_path):
    values = np.arange(60_000, dtype=np.int64)
    write(tmp_path / "a.h5", values)
    write(tmp_path / "b.h5", values + 1)
    write(tmp_path / "c.h5", values + 2)
    with h5py.File(tmp_path / "a.h5") as file:
        (tmp_path / "b.h5").rename(tmp_path / "a.h5")  # between opening and mapping
        found = mapped(file["values"])
    (tmp_path / "c.h5").rename(tmp_path / "a.h5")  # before anything has been looked at
    np.testing.assert_array_equal(found, values)


def test_what_cannot_be_mapped_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("pieces", data=np.arange(100), chunks=(10,))
        file["swapped"] = np.arange(100, dtype=">i4")
        file["nothing"] = np.zeros(0)
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("pieces", "swapped"):
            np.testing.assert_array_equal(mapped(file[name]), np.arange(100))
        assert mapped(file["nothing"]).shape == (0,)
