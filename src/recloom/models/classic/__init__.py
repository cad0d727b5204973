"""The families that everything new is held against, one file each, on the one interface."""

from recloom.models.classic.content import Content, ContentTfidf
from recloom.models.classic.ease import EASE
from recloom.models.classic.item_knn import ItemKNN
from recloom.models.classic.markov import Markov
from recloom.models.classic.mf import MF
from recloom.models.classic.ncf import NCF
from recloom.models.classic.popular import Popular, PopularRecent
from recloom.models.classic.random_order import RandomOrder
from recloom.models.classic.session_knn import STAN, VSKNN
from recloom.models.classic.two_tower import TwoTower
from recloom.models.classic.user_knn import UserKNN

__all__ = [
    "EASE",
    "MF",
    "NCF",
    "STAN",
    "VSKNN",
    "Content",
    "ContentTfidf",
    "ItemKNN",
    "Markov",
    "Popular",
    "PopularRecent",
    "RandomOrder",
    "TwoTower",
    "UserKNN",
]
