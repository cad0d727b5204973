"""People are dealt over shards: what one learned is in no other, and forgetting somebody is the affair of one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recloom import Dataset, Recommender
from recloom.compression import compressing
from recloom.compression.compressing import compress
from recloom.compression.onnx_export import can_export, export_onnx
from recloom.compression.onnx_graph import FloatItems, Int8Items, WeaveGraph
from recloom.dataset import shard_of
from recloom.errors import ConfigError, TrainingError, UnknownIdError
from recloom.fitting import fit_model
from recloom.lifecycle.forgetting import Receipt, forget, read_key
from recloom.lifecycle.versions import add_version, changing
from recloom.models import Sharded
from recloom.models.popularity_prior import AGE, SMOOTHING
from recloom.retrieval.search import Search
from tests.test_forgetting import SOMEBODY, traces
from tests.test_updating import HEADER, LATER, OLD, OLD_ITEMS, SETTINGS

SHARDS = 3
SHARDED = {**SETTINGS, "privacy": {"shards": SHARDS}}
THEIR_SHARD = shard_of(SOMEBODY, SHARDS)
THEIRS = [
    f"{SOMEBODY},i1,1000001,web",  # before everybody else, and again after
    f"{SOMEBODY},a-secret,1000052,fridge",  # an item and a word that nobody else has
    f"{SOMEBODY},i5,1009999,web",
]
OF_ANOTHER = next(f"u{user:02}" for user in range(30) if shard_of(f"u{user:02}", SHARDS) != THEIR_SHARD)


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "log.csv").write_text("\n".join([HEADER, *OLD, *THEIRS]) + "\n")
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *OLD_ITEMS]) + "\n")
    Dataset.from_files(tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "kept" / "dataset")
    (tmp_path / "log.csv").unlink()
    return tmp_path / "kept" / "dataset"


@pytest.fixture
def model(prepared):
    folder = prepared.with_name("model")
    Recommender.fit(Dataset.open(prepared), settings=SHARDED).save(folder)
    return folder


@pytest.fixture
def no_graph(monkeypatch):
    """Leave out what the graph costs, whose making takes long."""
    monkeypatch.setattr(compressing, "can_export", lambda: False)


def members(recommender):
    assert isinstance(recommender.model, Sharded)
    return [member.state_dict() for member in recommender.model.members]


def known_rows(recommender, state, name):
    """Return a tensor without the row of the item that leaves with somebody, where it has rows of items."""
    rows = len(recommender.dataset.items) + 1
    secret = recommender.dataset.items.index_of("a-secret")
    tensor = state[name]
    if secret and tensor.dim() and len(tensor) == rows:
        return torch.cat([tensor[:secret], tensor[secret + 1 :]])
    return tensor


def differing(before, after, number):
    """Return the names of the tensors of one member that are not the same bit by bit."""
    old, new = members(before)[number], members(after)[number]
    # The rows of circumstances are put in order by their words, of which one leaves too.
    names = [name for name in new if not name.endswith("table.weight")]
    return [name for name in names if not torch.equal(known_rows(before, old, name), new[name])]


def test_everybody_has_a_shard_that_does_not_depend_on_who_else_is_there():
    dealt = np.bincount([shard_of(f"user {number}", 8) for number in range(8_000)])
    assert len(dealt) == 8
    assert dealt.min() > 850
    assert {shard_of(user, 1) for user in ("a", "b", "ü")} == {0}


def test_only_their_shard_is_trained_again(model, monkeypatch):
    before = Recommender.load(model)
    trained_on = []

    def watched(dataset, *arguments, **options):
        trained_on.append(set(dataset.users.ids))
        return fit_model(dataset, *arguments, **options)

    monkeypatch.setattr("recloom.sharded_fitting.fit_model", watched)
    receipt, _ = forget(model, [SOMEBODY])
    after = Recommender.load(model)
    assert trained_on == [{user for user in after.dataset.users.ids if shard_of(user, SHARDS) == THEIR_SHARD}]
    assert differing(before, after, THEIR_SHARD)
    for number in set(range(SHARDS)) - {THEIR_SHARD}:
        assert differing(before, after, number) == []
        table = "towers.0.circumstances.table.weight"
        rows = after.model.members[number].row_sources(before.model.members[number], torch.zeros(1))[table]
        assert torch.equal(members(before)[number][table][rows], members(after)[number][table])
    assert receipt.weights == "retrained"
    assert receipt.shards.shards == [THEIR_SHARD + 1]
    in_shard = sum(shard_of(line.split(",")[0], SHARDS) == THEIR_SHARD for line in OLD)
    assert receipt.shards.work == round(in_shard / len(OLD), 4)
    assert Receipt.from_json(json.dumps(receipt.__dict__, default=vars)).is_genuine(read_key(model))


def test_the_model_is_what_it_would_be_had_they_never_been_there(model, dataset_of):
    forget(model, [SOMEBODY])
    forgotten = Recommender.load(model)
    never = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SHARDED)
    assert forgotten.dataset.fingerprint == never.dataset.fingerprint
    assert forgotten.config == never.config
    assert set(forgotten.model.state_dict()) == set(never.model.state_dict())
    for name, weight in never.model.state_dict().items():
        assert torch.equal(forgotten.model.state_dict()[name], weight), name
    assert set(forgotten.moments()) == set(never.moments())
    assert all((forgotten.moments()[name] == values).all() for name, values in never.moments().items())
    assert (forgotten.counts_I == never.counts_I).all()


@pytest.mark.parametrize("options", [{"split": {"protocol": "leave-one-out", "everything": True}}, {"split": {}}])
def test_it_is_so_under_other_splits_and_without_text(prepared, dataset_of, options):
    settings = {**SHARDED, **options, "encoder": {"name": "none"}}
    folder = prepared.with_name("other")
    Recommender.fit(Dataset.open(prepared), settings=settings).save(folder)
    receipt, _ = forget(folder, [SOMEBODY])
    # Where a test is held out, when it begins depends on everybody.
    assert len(receipt.shards.shards) == (1 if options["split"] else SHARDS)
    never = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=settings)
    for name, weight in never.model.state_dict().items():
        assert torch.equal(Recommender.load(folder).model.state_dict()[name], weight), name


def test_nothing_of_them_is_left_in_any_file(model, prepared):
    assert len(traces(prepared.parent)) >= 2
    forget(model, [SOMEBODY], datasets=[prepared])
    assert traces(prepared.parent) == []
    words = [path for path in prepared.parent.rglob("*") if path.is_file() and b"a-secret" in path.read_bytes()]
    assert words == []


def test_two_people_of_two_shards(model):
    before = Recommender.load(model)
    receipt, _ = forget(model, [SOMEBODY, OF_ANOTHER])
    after = Recommender.load(model)
    touched = {THEIR_SHARD, shard_of(OF_ANOTHER, SHARDS)}
    assert receipt.shards.shards == sorted(number + 1 for number in touched)
    for number in range(SHARDS):
        assert ("towers.0.to_query.weight" in differing(before, after, number)) == (number in touched)
        assert (differing(before, after, number) == []) == (number not in touched)


def test_somebody_unknown(model):
    before = (model / "model.safetensors").read_bytes()
    with pytest.raises(UnknownIdError, match="nothing was removed"):
        forget(model, ["nobody"])
    assert (model / "model.safetensors").read_bytes() == before


def test_weights_may_follow_later_for_their_shard_alone(model, prepared):
    before = Recommender.load(model)
    receipt, _ = forget(model, [SOMEBODY], datasets=[prepared], retrain=False)
    assert (receipt.weights, receipt.shards) == ("carry", None)
    assert traces(prepared.parent) == []
    carried = Recommender.load(model)
    assert carried.run.lineage["carries"] == [THEIR_SHARD]
    learned = "towers.0.to_query.weight"
    assert torch.equal(members(carried)[THEIR_SHARD][learned], members(before)[THEIR_SHARD][learned])
    # What is counted is counted without them at once.
    shares = np.exp(members(carried)[THEIR_SHARD]["prior.features_IP"][:, AGE - 1].numpy())
    of_shard = [line for line in OLD if shard_of(line.split(",")[0], SHARDS) == THEIR_SHARD]
    usual = len(of_shard) / len(carried.dataset.items)
    share = (sum(",i5," in line for line in of_shard) + SMOOTHING) / (usual + SMOOTHING)
    assert shares[carried.dataset.items.index_of("i5")] == pytest.approx(share, rel=1e-5)
    forget(model, [OF_ANOTHER], retrain=False)
    receipt, _ = forget(model, [])
    assert receipt.shards.shards == sorted({THEIR_SHARD + 1, shard_of(OF_ANOTHER, SHARDS) + 1})
    after = Recommender.load(model)
    assert "carries" not in after.run.lineage
    assert not torch.equal(members(after)[THEIR_SHARD][learned], members(before)[THEIR_SHARD][learned])


def test_a_kill_in_the_middle_leaves_a_whole_model_that_says_it_carries(model, monkeypatch):
    before = members(Recommender.load(model))

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recloom.sharded_fitting.fit_model", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(model, [SOMEBODY])
    whole = Recommender.load(model)
    assert whole.run.lineage["carries"] == [THEIR_SHARD]
    assert SOMEBODY not in whole.dataset.users
    learned = "towers.0.to_query.weight"
    assert all(torch.equal(old[learned], new[learned]) for old, new in zip(before, members(whole), strict=True))
    assert len(whole.recommend(history=["i1", "i2"], k=3).items) == 3
    receipt, _ = forget(model, [])
    assert receipt.shards.shards == [THEIR_SHARD + 1]


def test_an_update_teaches_each_shard_what_its_own_people_did(model, tmp_path):
    before = Recommender.load(model)
    later = [line for line in LATER if shard_of(line.split(",")[0], SHARDS) != THEIR_SHARD]
    (tmp_path / "later.csv").write_text("\n".join([HEADER, *later]) + "\n")
    with changing(model):
        add_version(before.update(tmp_path / "later.csv"), model)
    after = Recommender.load(model)
    name = "towers.0.to_query.weight"
    for number in range(SHARDS):
        same = torch.equal(members(before)[number][name], members(after)[number][name])
        assert same == (number == THEIR_SHARD)
    new = after.dataset.items.index_of("new")
    is_known = [bool(state["towers.0.items.seen_I"][new]) for state in members(after)]
    assert is_known == [number != THEIR_SHARD for number in range(SHARDS)]
    receipt, _ = forget(model, [SOMEBODY])
    forgotten = Recommender.load(model)
    assert receipt.shards.shards == [THEIR_SHARD + 1]
    for number in set(range(SHARDS)) - {THEIR_SHARD}:
        assert differing(after, forgotten, number) == []


def test_what_others_do_changes_nothing_in_a_shard_even_in_an_update(dataset_of, tmp_path):
    """Both the log and the news hold somebody of another shard more, with an item and a word of their own."""
    later = [*LATER, f"{SOMEBODY},another-secret,2000050,oven"]
    states = []
    for old, new in ((OLD, LATER), ([*OLD, *THEIRS], later)):
        (tmp_path / "later.csv").write_text("\n".join([HEADER, *new]) + "\n")
        fitted = Recommender.fit(dataset_of(old, OLD_ITEMS, HEADER), settings=SHARDED)
        updated = fitted.update(tmp_path / "later.csv")
        items = updated.dataset.items.indices_of([f"i{item}" for item in range(8)]).tolist()
        states.append(
            [
                {
                    name: tensor[items] if tensor.dim() and len(tensor) == len(updated.dataset.items) + 1 else tensor
                    for name, tensor in state.items()
                    if not name.endswith("table.weight")
                }
                for state in members(updated)
            ]
        )
    for number in range(SHARDS):
        without, with_them = states[0][number], states[1][number]
        unequal = [name for name in without if not torch.equal(without[name], with_them[name])]
        assert bool(unequal) == (number == THEIR_SHARD), unequal


def test_scores_are_the_mean_of_the_members_and_one_inner_product(model):
    recommender = Recommender.load(model)
    sharded = recommender.model.eval()
    numbered, _ = recommender_histories(recommender, [["i1", "i2"], ["i7"]])
    with torch.no_grad():
        each = torch.stack([member.queries(numbered) @ member.item_vectors().T for member in sharded.members])
        torch.testing.assert_close(sharded.scorer()(numbered), each.mean(dim=0))
    allowed = np.ones(sharded.num_items + 1, dtype=bool)
    allowed[0] = False
    rows, _ = Search(sharded).search(numbered, [allowed, allowed], [None, None])[0].best(3)
    listed = recommender.recommend(history=["i1", "i2"], k=3, include_seen=True).items
    assert [recommender.dataset.items.id_of(int(row)) for row in rows] == [item.item_id for item in listed]


def recommender_histories(recommender, histories):
    from recloom.dataset import Interaction, histories_from_interactions

    spelled = [[Interaction(item) for item in history] for history in histories]
    return histories_from_interactions(recommender.dataset, spelled, recommender.model.max_length)


def test_new_items_are_placed_by_their_text_also_while_it_serves(model, tmp_path):
    (tmp_path / "new.csv").write_text("item_id,title\nfresh,film number2 kind1\n")
    recommender = Recommender.load(model)
    more = recommender.with_items(tmp_path / "new.csv")
    assert "i2" in [item.item_id for item in more.similar_items("fresh", k=2)]
    row = more.dataset.items.index_of("fresh")
    serving = Search(recommender.with_room(1).model)
    assert not serving.unit_vectors(np.array([row])).any()
    serving.read_items([row], more.text.vectors_IE[[row]])
    np.testing.assert_allclose(
        serving.unit_vectors(np.array([row])), Search(more.model).unit_vectors(np.array([row])), atol=1e-6
    )


def test_a_shard_without_anybody_learns_nothing_and_the_last_of_a_shard_can_go(dataset_of, tmp_path):
    settings = {**SETTINGS, "privacy": {"shards": 30}}
    fitted = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=settings)
    users = [f"u{number:02}" for number in range(30)]
    held = {shard_of(user, 30) for user in users}
    assert fitted.run.warnings == [
        f"{30 - len(held)} of 30 shards hold nobody with two interactions and have learned nothing",
        f"{len(held)} of 30 shards could hold out fewer than 30 cases for validation; how long to train them is a"
        " guess, take fewer shards",
    ]
    alone = next(u for u in users if sum(shard_of(u, 30) == shard_of(other, 30) for other in users) == 1)
    fitted.save(tmp_path / "model")
    receipt, _ = forget(tmp_path / "model", [alone])
    assert (receipt.shards.shards, receipt.shards.work) == ([shard_of(alone, 30) + 1], 0.0)
    after = Recommender.load(tmp_path / "model")
    assert not any(parameter.any() for parameter in after.model.members[shard_of(alone, 30)].parameters())
    assert len(after.recommend(history=["i1", "i2"], k=3).items) == 3
    # Somebody new in that shard is learned from, from nothing.
    (tmp_path / "later.csv").write_text(
        "\n".join([HEADER, *(f"{alone},i{item},300000{item},web" for item in range(8))])
    )
    again = after.update(tmp_path / "later.csv")
    assert any(parameter.any() for parameter in again.model.members[shard_of(alone, 30)].parameters())


def test_what_cannot_be_sharded_is_refused(cycle_dataset, dataset_of):
    def fit(model="weave", **tables):
        return Recommender.fit(cycle_dataset, model, settings={"encoder": {"name": "none"}, **tables})

    with pytest.raises(ConfigError, match=r"privacy\.shards is 41, and the dataset holds 40 people; each shard"):
        fit(privacy={"shards": 41})
    with pytest.raises(ConfigError, match=r"privacy\.shards is 0; it has to be at least 1"):
        fit(privacy={"shards": 0})
    with pytest.raises(ConfigError, match=r"privacy\.shards is for weave; popular is fitted whole"):
        fit("popular", privacy={"shards": 2})
    with pytest.raises(ConfigError, match=r"training\.teacher has learned from everybody"):
        fit(privacy={"shards": 2}, training={"teacher": "somewhere"})
    with pytest.raises(ConfigError, match=r"privacy\.shards is 2 and privacy\.epsilon 8\.0"):
        fit(privacy={"shards": 2, "epsilon": 8.0})
    once = dataset_of(["a,i1,1000", "b,i2,2000", "c,i1,3000"], ["i1,film one", "i2,film two"])
    with pytest.raises(TrainingError, match="no user has two interactions"):
        Recommender.fit(once, settings={**SETTINGS, "privacy": {"shards": 2}})


def test_the_command_says_which_shard_was_trained(model):
    command = [str(Path(sys.executable).with_name("recloom")), "forget", str(model), "--user", SOMEBODY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Trained without them: shard {THEIR_SHARD + 1} of {SHARDS} was, " in done.stdout
    assert "of the work; the others never learned from them." in done.stdout


def test_a_model_of_shards_is_distilled_into_one(model, tmp_path, no_graph):
    compress(model, tmp_path / "small", ["distill"])
    small = Recommender.load(tmp_path / "small")
    assert not isinstance(small.model, Sharded)
    assert len(small.recommend(history=["i1", "i2"], k=3).items) == 3


@pytest.mark.parametrize("methods", [["int8"], ["prune", "int8"]], ids=" and ".join)
def test_a_model_of_shards_is_compressed_member_by_member(methods, model, tmp_path, no_graph):
    compression = compress(model, tmp_path / "small", methods)
    assert compression.after.disk_bytes < compression.before.disk_bytes
    before, small = Recommender.load(model), Recommender.load(tmp_path / "small")
    assert isinstance(small.model, Sharded)
    assert len(small.model.members) == SHARDS
    lists = [[i.item_id for i in one.recommend(history=["i1", "i2"], k=3).items] for one in (before, small)]
    assert lists[0][0] == lists[1][0]


def test_item_vectors_of_shards_are_not_stored_in_codes(model, tmp_path):
    with pytest.raises(ConfigError, match="as many tables of item vectors as shards, and pq makes codes of one"):
        compress(model, tmp_path / "small", ["pq"])


def test_forgetting_in_a_compressed_model_of_shards_trains_all_of_them(model, tmp_path, no_graph, dataset_of):
    compress(model, tmp_path / "small", ["int8"])
    receipt, _ = forget(tmp_path / "small", [SOMEBODY])
    assert receipt.weights == "retrained"
    # Beside members whose ids hold their text, a member that is fitted anew would have none.
    after = Recommender.load(tmp_path / "small")
    assert SOMEBODY not in after.dataset.users
    assert after.text.vectors_IE.any()
    fresh = Recommender.fit(after.dataset, settings=after.config.to_toml())
    for again, anew in zip(members(after), members(fresh), strict=True):
        assert all(torch.equal(again[name], anew[name]) for name in anew)


@pytest.mark.skipif(not can_export(), reason="the extra onnx is not installed")
@pytest.mark.parametrize("int8", [False, True], ids=["as it is", "in 8 bits"])
def test_a_graph_of_shards_answers_as_the_model_does(int8, model, tmp_path, no_graph):
    if int8:
        compress(model, tmp_path / "small", ["int8"])
    recommender = Recommender.load(tmp_path / "small" if int8 else model)
    parity = export_onnx(recommender, tmp_path / "graph")
    assert parity.holds
    assert parity.largest_difference < 1e-4
    assert isinstance(WeaveGraph(recommender.model, 5).items, Int8Items if int8 else FloatItems)
