// A collector made from wit/ alone: each record, a JSON object with a `request_id`, yields a Kafka record, a line of a file and a
// row for a plugin sink.

const decoder = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

let filePath = "high-match-results.jsonl";

/** The column's entries, one after the other; undefined for null. */
function* entries(column) {
  let at = 0;
  for (const length of column.lengths) {
    yield length < 0 ? undefined : column.bytes.subarray(at, (at += length));
  }
}

function requestId(value) {
  if (value === undefined) throw new Error("the record has no value");
  const id = JSON.parse(decoder.decode(value))?.request_id;
  if (id === undefined) throw new Error("`request_id` is missing");
  return id;
}

export const collector = {
  setup(context) {
    const { file_path, ...unknown } = JSON.parse(context.options);
    for (const name in unknown) {
      throw `\`${name}\` is no option of \`${context.name}\`; \`file_path\` is the only one`;
    }
    filePath = file_path ?? filePath;
  },

  collect(batch) {
    const result = { kafka: [], postgres: [], mongo: [], http: [], redis: [], files: [], plugin: [], failed: [] };
    const values = entries(batch.values);
    let index = 0;
    for (const key of entries(batch.keys)) {
      const value = values.next().value;
      try {
        const data = JSON.stringify({ request_id: requestId(value), language: "javascript" });
        result.kafka.push({ index, sink: "", key, data });
        result.files.push({ index, sink: "", path: filePath, data });
        result.plugin.push({ index, sink: "", key, value: encoder.encode(data), headers: [] });
      } catch (error) {
        result.failed.push({ index, kind: "reject", reason: `the value is no search request: ${error.message}` });
      }
      index += 1;
    }
    return result;
  },
};
