"""Unmodified PyAirbyte in a process that has never heard of us: `stranger.py URL SOURCE WRITES`."""

import importlib.util
import sys
import types

sys.modules["eventstore"] = sys.modules["projections"] = None  # what `pip uninstall` leaves
for name in ("airbyte", "airbyte.caches", "airbyte.shared"):  # else five seconds of imports
    folders = importlib.util.find_spec(name).submodule_search_locations
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = list(folders)

from airbyte.caches import _catalog_backend, _state_backend  # noqa: E402
from airbyte_protocol.models import AirbyteStateMessage  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402


class Config:
    def __init__(self, url):
        self._engine = create_engine(url)

    def get_sql_engine(self):
        return self._engine


def main():
    url, source, writes = sys.argv[1:]
    config = Config(url)
    states = _state_backend.SqlStateBackend(config)
    writer = states.get_state_writer(source)
    knew = sorted(states.get_state_provider(source).known_stream_names)
    streams = sorted(_catalog_backend.SqlCatalogBackend(config, "").stream_names)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for number in range(int(writes)):
        descriptor = {"name": f"s{number % 4}"}
        stream = {"stream_descriptor": descriptor, "stream_state": {"cursor": number}}
        message = {"type": "STREAM", "stream": stream}
        writer.write_state(AirbyteStateMessage.model_validate(message))
    sys.stdout.write(f"knew {knew} with the streams {streams}\n")


if __name__ == "__main__":
    main()
