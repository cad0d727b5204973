"""Arrays of an HDF5 file as they lie in it, without reading them."""

import h5py
import numpy as np


def mapped(stored: h5py.Dataset) -> np.ndarray:
    """Return an array whose values come from the file when they are looked at.

    It may be written to, which changes neither the file nor what others see. A file that is replaced while it is mapped
    stays there for who has mapped it. Arrays that lie in pieces, or where numbers must not begin, are read instead.
    """
    offset = stored.id.get_offset()
    if offset is None or offset % stored.dtype.itemsize or not stored.dtype.isnative:
        return stored[:]
    return np.memmap(stored.file.filename, stored.dtype, "c", offset, stored.shape).view(np.ndarray)
