"""How much recent popularity adds to a score: read off validation, in a few weights.

Shapes: B histories, L steps, I catalogue (with the padding row), C candidates, D width of queries, P features of an
item, G features of a request.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recloom.dataset import PADDING_INDEX, SECONDS_PER_DAY, Histories
from recloom.models.interface import TrainingData

DAYS = (1.0, 7.0, 30.0, 90.0, np.inf)
"""Windows before the end of training in which interactions are counted, each within the next."""
AGE, NEW = len(DAYS), len(DAYS) + 1
"""Features of an item after the shares: the log of days since it was first taken, and whether it never was."""
ITEM_FEATURES = len(DAYS) + 2
REQUEST_FEATURES = 4
LAST_EVENTS = 5
"""Interactions that tell how soon somebody takes what is new."""
SMOOTHING = 1.0
"""How often an item counts as taken in a window beforehand, spread by what was taken in the next longer one."""
STEPS = 40
"""Steps of the optimiser that finds the weights; it is there long before."""
CASES_AT_ONCE = 64
"""Validation cases whose scores are weighed together, so that memory is not that of all, several times over."""
BEGINNINGS = (0.0, -0.5, -1.0, -2.0, -4.0)
"""Logs of what scores are multiplied with, of which the best is where the optimiser begins."""
LARGEST_MULTIPLIER = 10.0
"""Log of it. A long step of the optimiser may ask for more, and a loss that overflows leads its line search astray."""
PENALTY = 2.0
"""Ridge on the weights, in cases: with few validation cases, popularity matters little unless they agree."""
TRUST = 20.0
"""The same on what they change by when they were chosen before."""
FORGIVENESS = 0.5
"""How little a case counts whose answer was far from the top: 0 is the likelihood, in which such cases count most,
1 the chance of drawing the answer, in which they hardly count. Chosen on validation (benchmarks/accuracy.md)."""


class PopularityPrior(nn.Module):
    """score = a(r) * (query . item) + b(r) . popularity(item), with a and b linear in what the request r says.

    Popularity is the log of an item's share of what was taken in several windows, how long ago it was first taken, and
    whether it never was. What is known of a request is how long ago the history ended (after a minute the next item
    continues it, after a year what is popular now says more), how long ago training ended (the later, the more is new),
    and how soon after it came the person took what they took (some like what is new).

    How much is asked for that nobody had taken before is what carries over from validation, shared among however many
    such items there are now: few new ones are each wanted more, and a catalogue full of what nobody wants does not fill
    the lists (`_share_among_new`; as of the last time that interactions were counted).

    The weights minimise a loss between likelihood and the chance of a hit (`FORGIVENESS`): Zhang and Sabuncu (2018),
    "Generalized Cross Entropy Loss", https://arxiv.org/abs/1805.07836.
    """

    features_IP: Tensor
    weight_GP: Tensor
    end: Tensor
    usual_lateness: Tensor
    longest_wait: Tensor
    num_new: Tensor

    def __init__(self, num_items: int) -> None:
        super().__init__()
        features_IP = torch.zeros(num_items + 1, ITEM_FEATURES)
        features_IP[1:, NEW] = 1  # until they are counted, as for items that come later, there are no interactions
        self.register_buffer("features_IP", features_IP)
        self.register_buffer("weight_GP", torch.zeros(REQUEST_FEATURES, 1 + ITEM_FEATURES))
        self.register_buffer("end", torch.zeros((), dtype=torch.int64))
        self.register_buffer("usual_lateness", torch.zeros(()))
        self.register_buffer("longest_wait", torch.zeros(()))
        self.register_buffer("num_new", torch.zeros((), dtype=torch.int64))
        self._usual_P: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_usual)  # type: ignore[no-untyped-call]

    def prepare(self, data: TrainingData) -> None:
        """Count interactions up to the end of the training data."""
        counts_PI = np.stack([data.item_counts(days) for days in DAYS])
        end = data.last_timestamp
        first_I = np.full(counts_PI.shape[1], end)
        for block in data.segments.blocks():
            positions = block.positions()
            np.minimum.at(first_I, data.dataset.item_index[positions], data.dataset.timestamp[positions])
        is_new_I = counts_PI[-1] == 0
        age_I = (end - first_I) / SECONDS_PER_DAY
        shares_PI = np.where(is_new_I, 0.0, _log_shares(counts_PI))  # as for an item that comes later
        features = np.concatenate([shares_PI, np.log1p(age_I)[None], is_new_I[None]])
        features[:, PADDING_INDEX] = 0
        self.features_IP = torch.from_numpy(features.T.copy()).float()
        self._usual_P = None
        self.end = torch.tensor(end)
        lateness = 0.0
        for block in data.segments.blocks():
            positions = block.positions()
            waited = data.dataset.timestamp[positions] - first_I[data.dataset.item_index[positions]]
            lateness += np.log1p(waited / SECONDS_PER_DAY).sum()
        self.usual_lateness = torch.tensor(lateness / max(1, data.segments.num_interactions)).float()
        self._share_among_new()

    def extend(self, query_BD: Tensor, histories: Histories) -> Tensor:
        """Return queries that also weigh popularity, shape (B, D + P)."""
        weight_BP = self._what_is_known(histories).to(query_BD) @ self.weight_GP
        return torch.cat([query_BD * multiplier(weight_BP), weight_BP[:, 1:]], dim=1)

    def usual(self, weight_P: Tensor) -> Tensor:
        """Return what popularity adds to the score of the average item that somebody has taken, a single number."""
        if self._usual_P is None:
            features_IP = self.features_IP[PADDING_INDEX + 1 :]
            taken_NP = features_IP[features_IP[:, NEW] == 0]
            self._usual_P = taken_NP.sum(dim=0) / max(1, len(taken_NP))
        return self._usual_P.to(weight_P) @ weight_P

    def fit(
        self,
        similarity_BC: Tensor,
        candidate_C: Tensor,
        target_position_B: Tensor,
        histories: Histories,
        num_new: int,
    ) -> None:
        """Choose the weights under which the targets come first, the queries and items being as they are.

        They begin at what was chosen before, and few cases do not lead far from there.

        Args:
            similarity_BC: Query times item; -inf for an item that may not be recommended.
            candidate_C: Which items.
            target_position_B: Which of the candidates was taken.
            histories: What it was asked for, and when.
            num_new: Items nobody had taken before that were there to choose from, candidates or not.
        """
        was_chosen = bool(self.weight_GP.any())
        before, self.longest_wait = self.longest_wait, torch.tensor(torch.inf)
        longest_wait = self._what_is_known(histories)[:, 2].max().float()
        # What was learned of long waits stays known when an update asks nobody who waited that long.
        self.longest_wait = torch.maximum(longest_wait, before) if was_chosen else longest_wait
        known_BG = self._what_is_known(histories).to(similarity_BC)
        features_CP = self.features_IP[candidate_C].to(similarity_BC)
        weight_GP = self.weight_GP.clone()
        penalty = TRUST if was_chosen else PENALTY

        def regret(some: slice) -> Tensor:
            forbidden_BC = similarity_BC[some] == -torch.inf
            possible_BC = similarity_BC[some].masked_fill(forbidden_BC, 0.0)  # infinity times a weight has no gradient
            weight_BP = known_BG[some] @ weight_GP
            score_BC = possible_BC * multiplier(weight_BP) + weight_BP[:, 1:] @ features_CP.T
            score_BC = score_BC.masked_fill(forbidden_BC, -torch.inf)
            target_score_B = score_BC.gather(1, target_position_B[some, None]).squeeze(1)
            log_chance_B = target_score_B - torch.logsumexp(score_BC, dim=1)
            # In double precision: where hardly a target is within reach, a step changes the seventh digit of the sum.
            return -torch.expm1(FORGIVENESS * log_chance_B.double()).sum() / FORGIVENESS

        num_cases = len(target_position_B)
        blocks = [slice(begin, begin + CASES_AT_ONCE) for begin in range(0, num_cases, CASES_AT_ONCE)]
        if not was_chosen:
            # Where scores are so far apart that hardly a target is within reach, no direction leads anywhere.
            found = []
            for beginning in BEGINNINGS:
                weight_GP[0, 0] = beginning
                found.append(sum(float(regret(some)) for some in blocks))
            weight_GP[0, 0] = BEGINNINGS[int(np.argmin(found))]
        weight_GP.requires_grad_()
        optimizer = torch.optim.LBFGS([weight_GP], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss_and_gradient() -> Tensor:
            optimizer.zero_grad()
            total = penalty / num_cases * (weight_GP - self.weight_GP).square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            for some in blocks:
                loss = regret(some) / num_cases
                loss.backward()  # type: ignore[no-untyped-call]
                total = total.detach() + loss.detach()
            return total

        optimizer.step(loss_and_gradient)  # type: ignore[no-untyped-call]
        self.weight_GP, self.num_new = weight_GP.detach(), torch.tensor(num_new)
        self._share_among_new()

    def fit_like(self, other: "PopularityPrior") -> None:
        """Take over the weights that were fitted for another model of the same kind."""
        self.weight_GP, self.longest_wait = other.weight_GP.clone(), other.longest_wait.clone()
        self.num_new = other.num_new.clone()
        self._share_among_new()

    def count_new(self, rows_N: Tensor | None = None) -> int:
        """Return how many of some items, or of all, nobody has taken."""
        features_NP = self.features_IP if rows_N is None else self.features_IP[rows_N]
        return int(features_NP[:, NEW].sum())

    def _share_among_new(self) -> None:
        """Make weights that are right for `num_new` new items right for as many as there are."""
        num_new = self.count_new()
        if self.num_new > 0 and num_new > 0:
            self.weight_GP[0, 1 + NEW] += torch.log(self.num_new / num_new)
            self.num_new = torch.tensor(num_new)

    def _what_is_known(self, histories: Histories) -> Tensor:
        return self.what_is_known(
            torch.from_numpy(histories.item_index_BL).long(),
            torch.from_numpy(histories.timestamp_BL),
            torch.from_numpy(histories.request.timestamp_B),
        )

    def what_is_known(self, item_index_BL: Tensor, timestamp_BL: Tensor, request_timestamp_B: Tensor) -> Tensor:
        """Return the features of requests, in double precision, shape (B, G).

        A constant; the log of days since the history ended; the log of days since training ended, which is not taken
        for longer than it was when the weights were fitted; and the mean log of days between an item's first
        interaction and this person's, over their last few. What is not known is taken for the usual: somebody who
        asks right after the last event, and takes things as late as everybody.

        Args:
            item_index_BL: Items of each history, oldest first, `PADDING_INDEX` at the end.
            timestamp_BL: UTC seconds, 0 where unknown.
            request_timestamp_B: When the next item is asked for, UTC seconds, 0 where unknown.
        """
        device = self.features_IP.device
        item_index_BL, timestamp_BL = item_index_BL.to(device), timestamp_BL.to(device)
        request_timestamp_B = request_timestamp_B.to(device)
        length_B1 = (item_index_BL != PADDING_INDEX).sum(dim=1, keepdim=True)
        last_time_B = timestamp_BL.gather(1, (length_B1 - 1).clamp_min(0)).squeeze(1)
        asked_at_B = torch.where(request_timestamp_B > 0, request_timestamp_B, last_time_B)
        silence_B = _log_days(_days(torch.where(last_time_B > 0, asked_at_B - last_time_B, 0)))
        wait_B = _log_days(_days(torch.where(asked_at_B > 0, asked_at_B - self.end, 0)))

        steps_L = torch.arange(item_index_BL.shape[1], device=device)
        is_read_BL = (steps_L < length_B1) & (steps_L >= length_B1 - LAST_EVENTS) & (timestamp_BL > 0)
        feature_BLP = self.features_IP[item_index_BL].double()
        # What nobody had taken when training ended was taken among the first.
        days_BL = _days(timestamp_BL - self.end) + torch.expm1(feature_BLP[..., AGE])
        late_BL = _log_days(days_BL) * (1 - feature_BLP[..., NEW])
        num_read_B = is_read_BL.sum(dim=1)
        lateness_B = (late_BL * is_read_BL).sum(dim=1) / num_read_B.clamp_min(1)
        lateness_B = torch.where(num_read_B > 0, lateness_B, self.usual_lateness.to(lateness_B))
        wait_B = torch.minimum(wait_B, self.longest_wait.to(wait_B))
        return torch.stack([torch.ones_like(silence_B), silence_B, wait_B, lateness_B], dim=1)


def multiplier(weight_BP: Tensor) -> Tensor:
    """Return what the scores of requests are multiplied with, of their weights, shape (B, 1)."""
    return weight_BP[:, :1].clamp_max(LARGEST_MULTIPLIER).exp()


def _log_shares(counts_PI: np.ndarray) -> np.ndarray:
    """Return the log of how many times the average item's share each item has of what was taken, window by window.

    A short window says little where little happened in it. So the share there is taken together with the share in the
    next longer one, as if that had been seen `SMOOTHING` times for each item; in the longest all items begin alike.

    Args:
        counts_PI: Interactions in each window, the shortest first, each within the next.
    """
    num_items = max(1, counts_PI.shape[1] - 1)
    share_I = np.ones(counts_PI.shape[1])
    shares = []
    for count_I in counts_PI[::-1]:
        total = count_I.sum() / num_items
        share_I = (count_I + SMOOTHING * share_I) / (total + SMOOTHING)
        shares.append(np.log(share_I))
    return np.stack(shares[::-1])


def _forget_usual(prior: PopularityPrior, _: object = None) -> None:
    """Have the average item worked out again, when it is asked for, after other features were loaded."""
    prior._usual_P = None


def _days(seconds: Tensor) -> Tensor:
    # In double precision, so that the order in which a padded batch is added up moves no score.
    return seconds.double() / SECONDS_PER_DAY


def _log_days(days: Tensor) -> Tensor:
    return torch.log1p(days.clamp_min(0))
