"""Models that are animals: ``gglib model add zoo:parrot``, served by the engine ``animal``."""

import json
import sys
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gglib import ModelFacts
from gglib.errors import ConfigurationError, EngineCannot, ModelFileMissing
from gglib.ports import Engine, EngineCapabilities, EngineProbe, LocatedModel, ModelSource


class Zoo(ModelSource):
    """Finds ``NAME.animal`` in a folder."""

    def __init__(self, folder):
        self.folder = folder

    async def locate(self, reference):
        path = self.folder / f"{Path(reference).name}.animal"
        try:
            size_bytes = path.stat().st_size
        except (OSError, ValueError):
            raise ModelFileMissing(path) from None
        return LocatedModel(
            paths=(path,),
            size_bytes=size_bytes,
            facts=ModelFacts(architecture="animal", capabilities=frozenset({"chat"})),
            suggested_name=path.stem,
        )


class AnimalEngine(Engine):
    """Runs this very file as a server that says what its model's file says."""

    def __init__(self, name):
        self._name = name

    @property
    def name(self):
        return self._name

    @property
    def capabilities(self):
        return EngineCapabilities()

    async def probe(self):
        return EngineProbe(path=Path(__file__), version="2.1", source="package")

    def command(self, config, port):
        for field, value in config.intents.items():
            raise EngineCannot(self._name, field, value, "an animal is as it is")
        server = [sys.executable, __file__, str(port), str(config.model_path)]
        return [*server, *config.extra_args]


@asynccontextmanager
async def open_zoo(context):
    """Open the source of ``[sources.NAME] kind = "zoo"``, ``folder = PATH``."""
    if set(context.settings) != {"folder"}:
        raise ConfigurationError("a zoo needs a folder, and no more", f"[sources.{context.name}]")
    yield Zoo(Path(context.settings["folder"]).absolute())


@asynccontextmanager
async def open_animal_engine(context):
    """Open the engine ``animal``; it has no settings."""
    if context.settings:
        raise ConfigurationError("an animal has no settings", f"[engines.{context.name}]")
    yield AnimalEngine(context.name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": Path(sys.argv[2]).read_text().strip()}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer({"id": "1", "created": 0, "object": "chat.completion", "choices": [choice]})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
