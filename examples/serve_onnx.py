"""Serve what `recloom export` wrote, with ONNX Runtime and numpy alone: no recloom, no torch.

python examples/serve_onnx.py EXPORT_FOLDER 1001 1002     # a history of item ids; prints what comes next
python examples/serve_onnx.py EXPORT_FOLDER               # http://127.0.0.1:8001/?history=1001,1002&k=5
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import onnxruntime

folder = Path(sys.argv[1])
catalogue = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
row_of = {item_id: row for row, item_id in enumerate(catalogue["items"])}
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def recommend(history: list[str], k: int = 10) -> list[dict]:
    """Rank the catalogue for a history of item ids, oldest first; unknown ids are skipped."""
    rows = [row_of[item_id] for item_id in history if row_of.get(item_id)]
    best = answer(rows) if rows else catalogue["popular"]
    return [{"item_id": catalogue["items"][row], "title": catalogue["titles"][row]} for row in best[:k]]


def answer(rows: list[int]) -> list[int]:
    read = rows[-catalogue["max_length"] :]
    known = {
        "item_index": [read],
        "behavior_index": [[catalogue["usual_behavior"]] * len(read)],
        "request_timestamp": [int(time.time())],
        "excluded": [[] if catalogue["include_seen"] else rows],
    }
    inputs = {}
    for wanted in session.get_inputs():  # what is not known is 0, or NaN among numbers
        dtype, unknown = (np.int64, 0) if wanted.type == "tensor(int64)" else (np.float64, np.nan)
        nothing = np.full((1, len(read))[: len(wanted.shape)], unknown)
        inputs[wanted.name] = np.array(known.get(wanted.name, nothing), dtype)
    recommended, scores = session.run(["recommended", "score"], inputs)
    return recommended[0][scores[0] > -np.inf].tolist()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = parse_qs(urlparse(self.path).query)
        found = recommend(asked.get("history", [""])[0].split(","), int(asked.get("k", ["10"])[0]))
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(found).encode())


if len(sys.argv) > 2:
    for place, item in enumerate(recommend(sys.argv[2:]), start=1):
        print(place, item["item_id"], item["title"])
else:
    ThreadingHTTPServer(("127.0.0.1", 8001), Handler).serve_forever()
