"""A collector made from wit/ alone: each record, a JSON object with a `request_id`, yields a Kafka record, a line of a file and
a row for a plugin sink."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import payloads, types


def entries(column: types.Column):
    """The column's entries, one after the other; None for null."""
    at = 0
    for length in column.lengths:
        if length < 0:
            yield None
        else:
            yield column.bytes[at : at + length]
            at += length


class Collector(exports.Collector):
    def __init__(self):
        self.file_path = "high-match-results.jsonl"

    def setup(self, context: types.Context) -> None:
        options = json.loads(context.options)
        unknown = options.keys() - {"file_path"}
        if unknown:
            raise Err(f"`{unknown.pop()}` is no option of `{context.name}`; `file_path` is the only one")
        self.file_path = options.get("file_path", self.file_path)

    def collect(self, batch: types.Batch) -> payloads.CollectResult:
        result = payloads.CollectResult([], [], [], [], [], [], [], [])
        for index, (key, value) in enumerate(zip(entries(batch.keys), entries(batch.values))):
            try:
                if value is None:
                    raise ValueError("the record has no value")
                request_id = json.loads(value)["request_id"]
            except (KeyError, TypeError, ValueError) as error:
                reason = f"the value is no search request: {error!r}"
                result.failed.append(types.Failure(index, types.FailureKind.REJECT, reason))
                continue
            data = json.dumps({"request_id": request_id, "language": "python"}, separators=(",", ":"))
            result.kafka.append(payloads.KafkaPayload(index, "", key, data))
            result.files.append(payloads.FilePayload(index, "", self.file_path, data))
            result.plugin.append(payloads.PluginPayload(index, "", key, data.encode(), []))
        return result
