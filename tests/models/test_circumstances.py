import numpy as np
import pytest
import torch

from recloom.dataset import Interaction, gather, histories_from_interactions
from recloom.models.circumstances import Circumstances, events_of, requests_of
from recloom.models.time_buckets import gap_buckets, gap_buckets_of, hours, weekdays

HEADER = "user_id,item_id,timestamp,behavior,device,price"
LOG = ["u1,a,1000,view,web,1", "u1,b,1060,buy,phone,3", "u1,c,9000,view,web,2", "u2,a,5000,view,,"]


@pytest.fixture
def dataset(dataset_of):
    return dataset_of(LOG, header=HEADER)


def history_of_u1(dataset, request=None, told=("timestamp", "device")):
    start = dataset.user_offsets[1:2]
    return gather(dataset, start, start + 2, 20, None if request is None else start + request, told)


def test_an_event_knows_its_gap_and_its_step_into_the_session(dataset):
    events = events_of(gather(dataset, dataset.user_offsets[1:2], dataset.user_offsets[2:3], 20))
    assert events.gap.tolist() == [[-1, 60, 7940]]
    assert events.session_step.tolist() == [[0, 1, 0]]  # more than half an hour of silence: a new session


def test_a_request_knows_how_long_ago_the_history_ended_and_its_context(dataset):
    request = requests_of(history_of_u1(dataset, request=2))
    assert request.gap.tolist() == [7940]
    assert request.timestamp.tolist() == [9000]
    device = dataset.context["device"]
    assert device.vocabulary.id_of(int(request.context["device"][0])) == "web"
    assert request.behavior is None  # what will be done is not known when it is asked


def test_a_column_that_is_not_told_stays_unknown(dataset):
    request = requests_of(history_of_u1(dataset, request=2, told=("timestamp",)))
    assert request.timestamp.tolist() == [9000]
    assert request.context["device"].tolist() == [0]
    assert np.isnan(request.context["price"]).tolist() == [True]


def test_nothing_is_known_of_a_request_unless_it_is_said(dataset):
    request = requests_of(history_of_u1(dataset))
    assert request.gap.tolist() == [-1]
    module = Circumstances(dataset, 4, of_requests=True)
    torch.nn.init.normal_(module.table.weight)
    with torch.no_grad():
        module.table.weight[0] = 0
    assert module(request).abs().sum() == 0


def test_every_thing_that_is_known_moves_the_vector(dataset):
    module = Circumstances(dataset, 4, of_requests=False)
    torch.nn.init.normal_(module.table.weight)
    torch.nn.init.normal_(module.numbers.weight)

    def vector(**changed):
        said = {"timestamp": 90_000, "behavior": "view", "context": {"device": "web", "price": 1}} | changed
        histories, _ = histories_from_interactions(dataset, [[Interaction("a", 60), Interaction("b", **said)]], 5)
        return module(events_of(histories))[0, 1]

    as_it_is = vector()
    assert torch.equal(vector(), as_it_is)
    changes = (
        {"timestamp": 94_000},
        {"behavior": "buy"},
        {"context": {"device": "phone", "price": 1}},
        {"context": {"device": "web", "price": 3}},
    )
    for change in changes:
        assert not torch.equal(vector(**change), as_it_is)


def test_what_the_user_table_says_is_part_of_every_event(tmp_path, dataset):
    from recloom.dataset import Dataset

    (tmp_path / "users.csv").write_text("user_id,country\nu1,DE\nu2,CN\n")
    (tmp_path / "l.csv").write_text("user_id,item_id,timestamp\nu1,a,1\nu2,a,1\n")
    dataset = Dataset.from_files(tmp_path / "l.csv", users=tmp_path / "users.csv")
    module = Circumstances(dataset, 4, of_requests=False)
    torch.nn.init.normal_(module.table.weight)
    both = module(events_of(gather(dataset, dataset.user_offsets[1:3], dataset.user_offsets[2:4], 5)))
    assert not torch.equal(both[0], both[1])


def test_the_clock_is_read_in_utc():
    time = torch.tensor([0, 86_399, 86_400, 7 * 86_400 + 3_600])
    assert hours(time).tolist() == [0, 23, 0, 1]
    assert hours(time.numpy()).tolist() == [0, 23, 0, 1]
    gaps = torch.tensor([-7, 0, 1, 2, 3, 4, 1023, 1024, 86_400, 2**31, 2**40])
    assert gap_buckets_of(gaps.numpy()).tolist() == gap_buckets(gaps).tolist()
    assert weekdays(time).tolist() == [0, 0, 1, 0]  # the first of January 1970 was a Thursday, day 0


def test_codes_of_different_kinds_never_share_a_row(dataset):
    module = Circumstances(dataset, 4, of_requests=False)
    assert np.all(np.diff(module._first_rows) > 0)
    assert module.table.num_embeddings == int(module._first_rows[-1]) + len(dataset.context["device"].vocabulary)
