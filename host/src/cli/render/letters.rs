//! What the `dlq` commands say. Lists and letters go to standard output, how it went to standard error.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::live::grouped;
use super::{err, escape, json as print_json, out};
use crate::cli::dlq::{Entry, List, Listed, Replayed, Shown};
use crate::cli::moment::Moment;
use crate::pipeline::dlq::{Content, Omitted, Opened};

/// Most characters of an error in a list.
const ERROR_WIDTH: usize = 100;

/// Prints a list of letters as a table or JSON, and how many there are.
pub fn list(list: &List, as_json: bool) {
    if as_json {
        return print_json(&list_value(list));
    }
    out(&table(&list.entries));
    let shown = list.entries.iter().filter(|entry| entry.listed.is_ok()).count() as u64;
    let which = if shown < list.matching { format!("{} of ", grouped(shown)) } else { String::new() };
    err(&format!(
        "{which}{}, {} unreadable, {} in {}\n",
        counted(list.matching, "letter"),
        grouped(list.unreadable),
        counted(list.all, "record"),
        escape(&list.topic)
    ));
}

fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// One line, printable, cut.
fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let cut: String = text.chars().take(ERROR_WIDTH).collect();
    let rest = if text.chars().nth(ERROR_WIDTH).is_some() { "…" } else { "" };
    format!("{}{rest}", escape(&cut))
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let head = ["record", "sink", "failed at", "attempts", "replays", "error"].map(str::to_owned);
    let rows = entries.iter().map(|entry| {
        let at = Moment(entry.failed_at).to_string();
        match &entry.listed {
            Ok(Listed { record, sink, attempts, replays, error, omitted, .. }) => {
                let error = match omitted.names().as_slice() {
                    [] => line(error),
                    names => format!("[without {}] {}", names.join(", "), line(error)),
                };
                [escape(record), escape(sink), at, attempts.to_string(), replays.to_string(), error]
            }
            Err(why) => [escape(&entry.letter), "unreadable".into(), at, "-".into(), "-".into(), line(why)],
        }
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn list_value(list: &List) -> Value {
    let letters: Vec<Value> = list
        .entries
        .iter()
        .map(|entry| match &entry.listed {
            Ok(listed) => json!({
                "letter": entry.letter,
                "record": listed.record,
                "sink": listed.sink,
                "failed_at": Moment(entry.failed_at).to_string(),
                "first_failed_at": Moment(listed.first_failed_at).to_string(),
                "attempts": listed.attempts,
                "replays": listed.replays,
                "error": listed.error,
                "omitted": listed.omitted.names(),
            }),
            Err(why) => json!({
                "letter": entry.letter,
                "failed_at": Moment(entry.failed_at).to_string(),
                "unreadable": why,
            }),
        })
        .collect();
    json!({
        "topic": list.topic,
        "letters": letters,
        "matching": list.matching,
        "unreadable": list.unreadable,
        "records": list.all,
    })
}

/// Prints all that letters say.
pub fn shown(letters: &[Shown], as_json: bool) {
    if as_json {
        return print_json(&Value::Array(letters.iter().map(shown_value).collect()));
    }
    out(&letters.iter().map(whole).collect::<Vec<_>>().join("\n"));
}

/// Bytes as text where they are, in base64 where they are not.
fn text_or_base64(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64 {}", BASE64.encode(bytes)),
    }
}

/// A JSON document over several lines; other text as it is.
fn pretty(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| format!("{value:#}"))
}

fn whole(shown: &Shown) -> String {
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        let value: Vec<String> = value.lines().map(escape).collect();
        let _ = writeln!(text, "{name:<8} {}", value.join("\n         "));
    };
    say("letter", &shown.letter);
    let Opened { letter, content, omitted } = match &shown.opened {
        Ok(opened) => opened,
        Err(why) => {
            say("written", &Moment(shown.timestamp).to_string());
            say("unread", why);
            if let Some(value) = &shown.value {
                say("value", &text_or_base64(value));
            }
            return text;
        }
    };
    say("record", &letter.source.at(letter.offset));
    if let Some(key) = &letter.key {
        say("key", &text_or_base64(key));
    }
    if letter.timestamp >= 0 {
        say("written", &Moment(letter.timestamp).to_string());
    }
    say("sink", &format!("{}/{}", letter.sink_type, letter.sink_name));
    say("error", &letter.error);
    say("kind", letter.kind.name());
    say("attempts", &letter.attempt_count.to_string());
    say("replays", &letter.replays.to_string());
    say("failed", &Moment(letter.failed_at).to_string());
    if let Some(first) = letter.first_failed_at.filter(|first| *first != letter.failed_at) {
        say("first", &Moment(first).to_string());
    }
    for (name, value) in &letter.headers {
        let value = value.as_ref().map_or_else(|| "null".into(), |value| text_or_base64(value));
        say("header", &format!("{}: {value}", text_or_base64(name)));
    }
    match content {
        Content::Payloads(..) => letter.payloads.iter().for_each(|payload| say("payload", &pretty(payload))),
        Content::Record => match &letter.value {
            Some(value) => say("value", &pretty(&text_or_base64(value))),
            None => say("value", "null"),
        },
        Content::Omitted => {}
    }
    if *omitted != Omitted::default() {
        say("omitted", &format!("{}: the letter was larger than its topic takes", omitted.names().join(", ")));
    }
    text
}

/// Bytes under `name` as text, or under `name_b64`.
fn put(object: &mut Value, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => object[name] = Value::Null,
        Some(Ok(text)) => object[name] = text.into(),
        Some(Err(bytes)) => object[format!("{name}_b64")] = BASE64.encode(bytes).into(),
    }
}

fn shown_value(shown: &Shown) -> Value {
    let Opened { letter, content, omitted } = match &shown.opened {
        Ok(opened) => opened,
        Err(why) => {
            let mut value = json!({ "letter": shown.letter, "unreadable": why });
            put(&mut value, "value", shown.value.as_deref());
            return value;
        }
    };
    let mut value = json!({
        "letter": shown.letter,
        "record": letter.source.at(letter.offset),
        "timestamp": letter.timestamp,
        "sink": format!("{}/{}", letter.sink_type, letter.sink_name),
        "error": letter.error,
        "kind": letter.kind.name(),
        "attempts": letter.attempt_count,
        "replays": letter.replays,
        "failed_at": Moment(letter.failed_at).to_string(),
        "first_failed_at": Moment(letter.first_failed_at.unwrap_or(letter.failed_at)).to_string(),
    });
    put(&mut value, "key", letter.key.as_deref());
    let headers = letter.headers.iter().map(|(name, of)| {
        let mut header = json!({});
        put(&mut header, "name", Some(name));
        put(&mut header, "value", of.as_deref());
        header
    });
    value["headers"] = headers.collect::<Vec<_>>().into();
    match content {
        Content::Payloads(..) => {
            let parsed = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            value["payloads"] = letter.payloads.iter().map(parsed).collect::<Vec<Value>>().into();
        }
        Content::Record => put(&mut value, "value", letter.value.as_deref()),
        Content::Omitted => {}
    }
    if *omitted != Omitted::default() {
        value["omitted"] = json!(omitted.names());
    }
    value
}

/// Says what is replayed under which group.
pub fn replaying(topic: &str, group: &str) {
    err(&format!("replaying {} under group {}\n", escape(topic), escape(group)));
}

/// Says what came of it.
pub fn replayed(replayed: &Replayed, ended: bool) {
    err(&replayed_text(replayed, ended));
}

/// Says what would be replayed.
pub fn would_replay(topic: &str, group: &str, replayed: &Replayed) {
    out(&format!(
        "would replay {} of {} under group {}, {} passed over\n{}",
        counted(replayed.totals.taken, "letter"),
        escape(topic),
        escape(group),
        grouped(replayed.totals.passed()),
        passed(replayed)
    ));
}

fn replayed_text(replayed: &Replayed, ended: bool) -> String {
    let totals = &replayed.totals;
    let skipped = if replayed.skipped == 0 {
        String::new()
    } else {
        format!(", {} skipped", counted(replayed.skipped, "payload"))
    };
    if !ended {
        return format!(
            "stopped  before the end: {} taken up, {} dead-lettered again; the same command goes on from what was \
             committed\n",
            counted(totals.taken, "letter"),
            grouped(totals.again)
        );
    }
    format!(
        "replayed {}: {} delivered, {} dead-lettered again, {} passed over{skipped}\n{}",
        counted(totals.taken, "letter"),
        grouped(totals.taken.saturating_sub(totals.again)),
        grouped(totals.again),
        grouped(totals.passed()),
        passed(replayed)
    )
}

/// Why letters were passed over, where some were.
fn passed(replayed: &Replayed) -> String {
    let totals = &replayed.totals;
    let parts = [
        (totals.not_meant, "not meant by the filters".to_owned()),
        (totals.too_often, format!("replayed {} already", counted(replayed.max_replays.into(), "time"))),
        (totals.handled, "replayed by a replay of all".to_owned()),
        (totals.omitted, "without their payload".to_owned()),
        (totals.unreadable, "unreadable".to_owned()),
    ];
    let said: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{} {why}", grouped(*count))).collect();
    if said.is_empty() { String::new() } else { format!("passed   over: {}\n", said.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::replay::Totals;

    #[test]
    fn s96_the_closing_line_reads_as_designed() {
        let totals = Totals { taken: 12, again: 1, too_often: 2, unreadable: 1, ..Totals::default() };
        assert_eq!(
            replayed_text(&Replayed { totals, skipped: 0, max_replays: 3 }, true),
            "replayed 12 letters: 11 delivered, 1 dead-lettered again, 3 passed over\n\
             passed   over: 2 replayed 3 times already, 1 unreadable\n"
        );
    }

    #[test]
    fn a_list_keeps_its_columns_and_its_terminal() {
        let listed = |error: &str| Listed {
            record: "orders[3]@1042".into(),
            sink: "postgres/main".into(),
            attempts: 4,
            replays: 0,
            first_failed_at: 0,
            error: error.into(),
            omitted: Omitted::default(),
        };
        let entry = |listed| Entry { letter: "orders_dlq[0]@7".into(), failed_at: 1_700_000_000_250, listed };
        let omitted = Omitted { payload: true, key: true, headers: false };
        let entries = [
            entry(Ok(listed("no\u{1b}[2J\n  column"))),
            entry(Ok(Listed { omitted, ..listed("too long") })),
            entry(Err("it has no value".into())),
            entry(Ok(listed(&"x".repeat(200)))),
        ];
        let long = format!("{}…", "x".repeat(100));
        insta::assert_snapshot!(table(&entries).replace(&long, "[cut]"), @r"
        record           sink           failed at                attempts  replays  error
        orders[3]@1042   postgres/main  2023-11-14T22:13:20.25Z  4         0        no\u{1b}[2J column
        orders[3]@1042   postgres/main  2023-11-14T22:13:20.25Z  4         0        [without payload, key] too long
        orders_dlq[0]@7  unreadable     2023-11-14T22:13:20.25Z  -         -        it has no value
        orders[3]@1042   postgres/main  2023-11-14T22:13:20.25Z  4         0        [cut]
        ");
    }
}
