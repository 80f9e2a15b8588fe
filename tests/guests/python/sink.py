"""A buffering sink made from wit/ alone: appends the values of each topic-partition to a file of its own in a granted
directory. A call may be made on a new object, so what the instance remembers stands in the module."""

import json
import os

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import sink
from wit_world.imports import types

directory = ""
buffers: dict[tuple[str, int], list[bytes]] = {}


def entries(column: types.Column):
    """The column's entries, one after the other; null is empty."""
    at = 0
    for length in column.lengths:
        yield column.bytes[at : at + max(length, 0)]
        at += max(length, 0)


def append(path: str, lines: list[bytes]) -> None:
    """Appends lines and syncs them. A line that the end of a host has cut off gets an end of its own."""
    # A file that is open for appending cannot be relied on to be read at another place.
    if os.path.exists(path) and os.path.getsize(path) > 0:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                lines = [b"", *lines]
    with open(path, "ab") as file:
        file.write(b"\n".join(lines) + b"\n")
        file.flush()
        os.fsync(file.fileno())


class Sink(exports.Sink):
    def setup(self, context: types.Context) -> sink.Description:
        global directory
        options = json.loads(context.options)
        if options.keys() != {"directory"}:
            raise Err(f"`{context.name}` takes one option, `directory`")
        directory = options["directory"]
        return sink.Description(sink.Style.BUFFERING, False, 0, 0)

    def connect(self) -> None:
        try:
            os.listdir(directory)
        except OSError as error:
            raise Err(types.Fault_Fatal(f"`{directory}` cannot be read: {error}"))

    def add(self, batch: types.Batch) -> list[types.Failure]:
        buffers.setdefault((batch.topic, batch.partition), []).extend(entries(batch.values))
        return []

    def flush(self, source: types.TopicPartition) -> list[types.Failure]:
        lines = buffers.pop((source.topic, source.partition), [])
        try:
            if lines:
                append(f"{directory}/{source.partition}.jsonl", lines)
        except OSError as error:
            raise Err(types.Fault_Unavailable(f"rows cannot be written: {error}"))
        return []

    def deliver(self, batch: types.Batch) -> list[types.Failure]:
        raise Err(types.Fault_Fatal("`deliver` was called on a buffering sink"))

    def discard(self, source: types.TopicPartition) -> None:
        buffers.pop((source.topic, source.partition), None)

    def close(self) -> None:
        pass
