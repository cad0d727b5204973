"""Arrays of an HDF5 file as they lie in it, without reading them."""

import mmap

import h5py
import numpy as np


def mapped(stored: h5py.Dataset) -> np.ndarray:
    """Return an array whose values come from the file when they are looked at.

    It may be written to, which changes neither the file nor what others see. What is mapped is the file that is open,
    whatever has its name by now: a file that is replaced stays there for who has mapped it. That holds on a disk of
    this machine, and on NFS if it is this machine that replaces it; where another one does, the server may give the
    old file up, and to look at what was not read yet ends the process (SIGBUS). Arrays that lie in pieces, or where
    numbers must not begin, are read instead, and so is what is open by other means than a file descriptor.
    """
    offset = stored.id.get_offset()
    is_a_file = stored.file.driver == "sec2"
    if not is_a_file or offset is None or offset % stored.dtype.itemsize or not stored.dtype.isnative:
        return stored[:]
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    begin, size = offset - skipped, skipped + stored.nbytes
    view = mmap.mmap(stored.file.id.get_vfd_handle(), size, access=mmap.ACCESS_COPY, offset=begin)
    return np.frombuffer(view, stored.dtype, stored.size, skipped).reshape(stored.shape)
