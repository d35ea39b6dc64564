"""A small real server of the OpenAI interface: it answers as vLLM or as a plain server does, with the replies of a tiny model."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Whose replies it gives, what kind of server it is, and what is wrong with it.

    Attributes:
        kind: `vllm` (ids and messages), `plain` (messages), `thinker` (messages, but no temperature), `strict` (messages, but no settings
            that only some servers know), `no-system` (messages, but no role of the system).
        faults: What to do wrong, one a request from the front; none: all is well.
        asked: The bodies that came, but for those of the probe.
        says: What it answers to messages instead of the model.
    """

    daemon_threads = True

    def __init__(self, policy, kind="vllm", root=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.policy, self.kind, self.root = policy, kind, root
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.faults: list[str] = []
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.key = None
        self.says = ""
        self.stall = 3.0
        self.closing = threading.Event()
        self._one = threading.Lock()

    def handle_error(self, request, client_address):
        pass  # a client that went away

    def completions(self, asked):
        reply = self._reply(asked["prompt"], asked)
        choice = {
            "index": 0,
            "text": reply.text,
            "token_ids": list(reply.sampled_ids),
            "prompt_token_ids": asked["prompt"],
            "logprobs": {"token_logprobs": list(reply.logprobs)},
        }
        return {"choices": [choice]}

    def chat(self, asked):
        renderer, said = self.policy.renderer, asked["messages"]
        context = said[0]["content"] if said[0]["role"] == "system" else None
        by_role = {role: [one["content"] for one in said if one["role"] == role] for role in ("user", "assistant")}
        text = self.says or self._reply(renderer.prompt(context, by_role["user"], by_role["assistant"]), asked).text
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}

    def _reply(self, prompt, asked):
        with self._one:
            self.policy.temperature = asked.get("temperature", 1.0)
            self.policy.longest = asked.get("max_tokens") or asked["max_completion_tokens"]
            return self.policy.complete([prompt], [asked.get("seed", 0)])[0]


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        self._send({"data": [{"id": "tiny", "root": self.server.root or "tiny"}]})

    def do_POST(self):
        self.server.headers.append(dict(self.headers))
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            return self._send({"error": {"message": "no"}}, 401)
        by_ids = self.path == "/v1/completions"
        if by_ids and server.kind != "vllm":
            return self._send({"error": {"message": "not here"}}, 404)
        if reason := refusal(server.kind, asked):
            return self._send({"error": {"message": reason}}, 400)
        if asked.get("max_tokens") != 16:
            server.asked.append(asked)
        fault = server.faults.pop(0) if server.faults else ""
        if fault == "stall" and server.closing.wait(server.stall):
            return None  # torch in a thread that the end of the process cuts off would abort it
        if not self._spoilt(fault):
            answer = server.completions(asked) if by_ids else server.chat(asked)
            self._send(spoilt(answer, fault), half=fault == "half")

    def _spoilt(self, fault):
        """Do something else than to answer, where that is what is wrong."""
        if fault in ("500", "429", "400", "403"):
            self._send({"error": {"message": f"{fault} \x1b[31m {self.headers['Authorization']}"}}, int(fault))
        elif fault == "elsewhere":
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.2:9/v1/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "reset":
            self.connection.close()
        elif fault == "drip":
            self._drip()
        return fault in ("500", "429", "400", "403", "elsewhere", "reset", "drip")

    def _drip(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def _send(self, body, code=200, half=False):
        data = json.dumps(body).encode()
        data = data[: len(data) // 2] if half else data
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


def refusal(kind, asked):
    """Why a server of a kind refuses what it is asked; "" if it does not."""
    if kind == "thinker" and "temperature" in asked:
        return "Unsupported value: 'temperature'"
    if kind == "strict" and "min_p" in asked:
        return "Unrecognized request argument supplied: min_p"
    if kind == "no-system" and asked["messages"][0]["role"] == "system":
        return "System role not supported"
    return ""


def spoilt(answer, fault):
    """An answer with something wrong in it."""
    whole = {"nothing": {"choices": []}, "list": [1], "text": "hello"}
    if fault in whole:
        return whole[fault]
    choice = answer["choices"][0]
    if "message" in choice:
        wrong = {"content": {"content": 7}, "null": {"content": None}, "long": {"content": "x" * 10_000}}
        choice["message"] |= wrong.get(fault, {})
        return answer
    logs, ids = choice["logprobs"]["token_logprobs"], choice["token_ids"]
    wrong = {
        "nan": {"logprobs": {"token_logprobs": [float("nan"), *logs[1:]]}},
        "short": {"logprobs": {"token_logprobs": logs[:-1]}},
        "negative": {"token_ids": [-3, *ids[1:]]},
        "words": {"token_ids": ["seven", *ids[1:]]},
        "other tokenizer": {"text": "quite another text"},
        "other prompt": {"prompt_token_ids": [1]},
        "huge id": {"token_ids": [2**70, *ids[1:]]},
        "unknown id": {"token_ids": [999_999, *ids[1:]]},
        "too many": {"token_ids": ids * 99, "logprobs": {"token_logprobs": logs * 99}},
        "huge number": {"logprobs": {"token_logprobs": [-(10**400), *logs[1:]]}},
        "infinite": {"logprobs": {"token_logprobs": [float("-inf"), *logs[1:]]}},
    }
    choice |= wrong.get(fault, {})
    return answer


def serving(policy, kind="vllm", root=None):
    """A running server; a generator for a fixture."""
    with Server(policy, kind, root) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
