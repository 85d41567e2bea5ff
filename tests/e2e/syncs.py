"""Syncs through PyAirbyte, for a process of their own: each opens its cache anew."""

import os
import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

warnings.simplefilter("ignore")

import airbyte as ab  # noqa: E402 - its dependencies warn when they are imported
from airbyte.caches import DuckDBCache  # noqa: E402

from projections.pyairbyte import with_history  # noqa: E402

CONFIG = {
    "count": 12,
    "seed": 7,
    "parallelism": 1,
    "records_per_slice": 4,
    "always_updated": False,
}


@cache
def faker(executable, *streams):
    return ab.get_source(
        "source-faker",
        local_executable=Path(executable),
        install_if_missing=False,
        config=CONFIG,
        streams=list(streams),
    )


def sync(source, *, cache_path, prefix="", destination_path=None, copies=(), **options):
    files = Path(cache_path).with_suffix(".files")
    with DuckDBCache(db_path=cache_path, table_prefix=prefix, cache_dir=files) as plain:
        cache = with_history(plain)
        if destination_path is None:
            result = source.read(cache, skip_validation=True, **options)
        else:
            lake = ab.get_destination(
                "destination-lake",
                local_executable=Path(destination_path),
                config={"notes": str(Path(cache_path).with_suffix(".confirmed"))},
            )
            result = lake.write(source, cache=False, state_cache=cache, **options)
        rows = {name: len(dataset) for name, dataset in cache.streams.items()}
    for path in copies:
        shutil.copy(cache_path, path)
    return {"records": result.processed_records, "rows": rows}


def sync_all(executable, syncs):
    """How each sync of a list of streams and a dict of options went."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return [sync(faker(executable, *streams), **options) for streams, options in syncs]
