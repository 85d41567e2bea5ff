"""One of several processes that append to one pipeline: `python racer.py URL PIPELINE COUNT`.

Says "ready", waits for a line, appends, and says which versions it was given.
"""

import json
import os
import sys

from eventstore import Pipeline, StateSaved
from projections import connect


def main() -> None:
    url, source, count = sys.argv[1:]
    with connect(url) as store:
        _say("ready")
        sys.stdin.readline()
        versions = []
        for cursor in range(int(count)):
            blob = json.dumps({"process": os.getpid(), "cursor": cursor})
            descriptor = '{"stream_descriptor":{"name":"users"},"stream_state":' + blob + "}"
            message = '{"type":"STREAM","stream":' + descriptor + "}"
            [stored] = store.append(Pipeline(source), StateSaved(message), run=str(os.getpid()))
            versions.append(stored.version)
        _say(json.dumps({"process": os.getpid(), "versions": versions}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
