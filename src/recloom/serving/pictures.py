"""Which files a service may look at for the pictures of items that come at run time."""

from pathlib import Path

from recloom.encoders.pictures import PictureError, picture_path


def served_picture(cell: str, folder: str) -> str:
    """Return the file: address of a picture that lies in the service's folder of pictures; "" for any other.

    Whoever may put items names files on the service's own machine, and is to reach no others.

    Args:
        cell: What an item's `image` says: a path in the folder.
        folder: `service.pictures`; "" where no pictures are read.
    """
    if not cell or not folder:
        return ""
    try:
        inside = Path(folder).expanduser().resolve()
        path = (inside / picture_path(cell)).resolve()
        return path.as_uri() if path.is_relative_to(inside) else ""
    except (PictureError, OSError, ValueError, RuntimeError):  # an address on the web, or no path at all
        return ""
