//! A collector that searches the text of each record and tells several sinks what it found.
//!
//! A record is a search request:
//!
//! ```json
//! {"request_id": "r-1", "pattern": "timeout", "text": "connected\nread timeout\nclosed"}
//! ```
//!
//! with `"lines": ["connected", "read timeout", "closed"]` as another way to write `text`. A line matches when it contains the
//! pattern. Anything else is rejected with the reason, a tombstone too. What it found goes to the sinks that the options name:
//!
//! | sink | payload |
//! |---|---|
//! | `kafka` | the result with its first 50 matches; the key is the request's id |
//! | `postgres` | the summary, a row of `search_results` |
//! | `mongo` | the result, a document of `search_archive` |
//! | `redis` | the summary under `search:<request id>`, for an hour |
//! | `http` | a notification, above `high_match` matches |
//! | `filesystem` | the result, a line of `file_path`, above `very_high_match` matches |
//! | `plugin` | the summary as JSON; the key is the request's id |
//!
//! Nothing in a payload depends on the clock, so a record that comes again yields the same bytes.

mod options;

use std::borrow::Cow;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use tidegate_sdk::{Collector, Context, Failed, Payloads, Record, export_collector};

use options::{Kind, Options};

/// Matches that a result shows; the count tells of all of them.
const SHOWN: usize = 50;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    pattern: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    lines: Option<Vec<Line<'a>>>,
}

/// Serde borrows a string inside a list only through a field of its own.
#[derive(Deserialize)]
#[serde(transparent)]
struct Line<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Serialize)]
struct SearchResult<'a> {
    request_id: &'a str,
    pattern: &'a str,
    match_count: usize,
    matches: &'a [&'a str],
}

#[derive(Serialize)]
struct SearchSummary<'a> {
    request_id: &'a str,
    pattern: &'a str,
    match_count: usize,
}

#[derive(Serialize)]
struct SearchNotification<'a> {
    request_id: &'a str,
    pattern: &'a str,
    match_count: usize,
    message: &'a str,
}

struct Search {
    options: Options,
}

impl Collector for Search {
    fn new(context: &Context) -> Result<Self, String> {
        Ok(Self { options: context.options()? })
    }

    fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed> {
        let request: Request<'_> = record.json()?;
        for (name, value) in [("request_id", &request.request_id), ("pattern", &request.pattern)] {
            if value.is_empty() {
                return Err(Failed::reject(format_args!("`{name}` is empty")));
            }
        }
        let (count, matches) = match (&request.text, &request.lines) {
            (Some(text), None) => search(&request.pattern, text.lines()),
            (None, Some(lines)) => search(&request.pattern, lines.iter().map(|Line(line)| line.as_ref())),
            (Some(_), Some(_)) => return Err(Failed::reject("a request has either `text` or `lines`, not both")),
            (None, None) => return Err(Failed::reject("a request has `text` or `lines` to search in")),
        };
        self.emit(&request.request_id, &request.pattern, count, &matches, out)
    }
}

impl Search {
    fn emit(&self, id: &str, pattern: &str, count: usize, matches: &[&str], out: &mut Payloads) -> Result<(), Failed> {
        let result = SearchResult { request_id: id, pattern, match_count: count, matches };
        let summary = SearchSummary { request_id: id, pattern, match_count: count };
        for target in &self.options.sinks {
            let sink = target.name.as_str();
            match target.kind {
                Kind::Kafka => {
                    out.kafka(&result)?.key(id).sink(sink);
                }
                Kind::Postgres => {
                    out.postgres("search_results", &summary)?.sink(sink);
                }
                Kind::Mongo => {
                    out.mongo("search_archive", &result)?.sink(sink);
                }
                Kind::Redis => {
                    out.redis(&format!("search:{id}"), &summary)?.ttl(3600).sink(sink);
                }
                Kind::Http if above(self.options.high_match, count) => {
                    let message = &format!("High match count: {count} matches for '{pattern}'");
                    let notification = SearchNotification { request_id: id, pattern, match_count: count, message };
                    out.http(&notification)?.sink(sink);
                }
                Kind::Filesystem if above(self.options.very_high_match, count) => {
                    out.file(&self.options.file_path, &result)?.sink(sink);
                }
                Kind::Http | Kind::Filesystem => {}
                Kind::Plugin => {
                    out.plugin_json(&summary)?.key(id).sink(sink);
                }
            }
        }
        Ok(())
    }
}

/// A threshold of 0 lets everything through, a request without a single match too.
fn above(threshold: usize, count: usize) -> bool {
    threshold == 0 || count > threshold
}

/// How many lines contain the pattern, and the first of them.
fn search<'l>(pattern: &str, lines: impl Iterator<Item = &'l str>) -> (usize, Vec<&'l str>) {
    let finder = Finder::new(pattern);
    let mut count = 0;
    let mut shown = Vec::new();
    for line in lines.filter(|line| finder.find(line.as_bytes()).is_some()) {
        count += 1;
        if shown.len() < SHOWN {
            shown.push(line);
        }
    }
    (count, shown)
}

export_collector!(Search);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_matches_when_it_contains_the_pattern_and_all_are_counted() {
        let text = "a timeout\r\nnothing\ntimeout";
        assert_eq!(search("timeout", text.lines()), (2, vec!["a timeout", "timeout"]));
        let many = "x\n".repeat(60);
        let (count, shown) = search("x", many.lines());
        assert_eq!((count, shown.len()), (60, 50));
    }

    #[test]
    fn a_threshold_is_passed_above_it_and_zero_always() {
        assert!(above(0, 0));
        assert!(!above(20, 20));
        assert!(above(20, 21));
    }
}
