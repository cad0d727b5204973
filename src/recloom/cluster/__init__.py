"""What the commands do comes in, spread over the machines of a Ray cluster it goes out: the same functions, elsewhere."""

from recloom.cluster.connection import LOCAL, NEAREST, Joined, connected
from recloom.cluster.training import RayFitter

__all__ = ["LOCAL", "NEAREST", "Joined", "RayFitter", "connected"]
