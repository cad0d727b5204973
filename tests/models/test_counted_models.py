from recloom.dataset import Segments, gather
from recloom.models import MODELS, Ranker, TrainingData
from tests.conftest import fake_text


def ranking_of(name, dataset, **options):
    model = MODELS[name](MODELS[name].Config(**options), dataset, fake_text(dataset))
    offsets = dataset.user_offsets
    model.count(TrainingData(dataset, Segments(offsets[:-1], offsets[1:])))
    histories = gather(dataset, offsets[1:2], offsets[2:3], 20)
    ranked = Ranker(model).rank(histories, 4, include_seen=True)
    return [dataset.items.id_of(i) for i in ranked.item_index_BK[0]], ranked.score_BK[0].tolist()


DAY = 86_400
LOG = [
    *(f"u{user},old,{DAY + user}" for user in range(5)),
    *(f"u{user},new,{30 * DAY + user}" for user in range(2)),
    f"u0,mid,{2 * DAY}",
]


def test_popular_counts_interactions(dataset_of):
    assert ranking_of("popular", dataset_of(LOG, ["none,N"])) == (["old", "new", "mid", "none"], [5, 2, 1, 0])


def test_popular_recent_counts_the_last_days_and_then_all_time(dataset_of):
    items, scores = ranking_of("popular-recent", dataset_of(LOG, ["none,N"]), days=7)
    assert items == ["new", "old", "mid", "none"]
    assert int(scores[0]) == 2
    assert scores[1] < 1


def test_content_puts_first_what_reads_like_the_history(dataset_of):
    titles = ["a,red summer dress", "b,red summer skirt", "c,steel kitchen knife", "d,steel kitchen pan"]
    log = ["u1,a,1", "u2,c,2", "u2,d,3", "u3,b,4"]
    assert ranking_of("content", dataset_of(log, titles))[0][:2] == ["a", "b"]
