"""The work of a command comes in; done by the machines of a Ray cluster, with the same functions, it goes out."""

from recloom.cluster.connection import LOCAL, NEAREST, Joined, connected

__all__ = ["LOCAL", "NEAREST", "Joined", "connected"]
