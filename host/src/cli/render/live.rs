//! What `run` and `demo` say while they run and at their end. All of it goes to standard error: it is for people.

use std::fmt::Write as _;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::{err, escape};
use crate::cli::summary::Summary;
use crate::telemetry::{Counter, Counters};

/// Says what runs from where to where.
pub fn running(topics: &[(String, i32)], sinks: &[String]) {
    let topics: Vec<String> =
        topics.iter().map(|(topic, partitions)| format!("{}[0..{}]", escape(topic), partitions - 1)).collect();
    err(&format!("running  {} → {}\n", topics.join(", "), escape(&sinks.join(", "))));
}

/// Says under which group a part is read again, which is not the configured one.
pub fn backfill(from: &str, group: &str) {
    err(&format!("backfill from {} under group {}, going on where that group stands\n", escape(from), escape(group)));
}

/// Says that everything there was is settled and committed.
pub fn ended(summary: &Summary) {
    err(&format!("done     {}\n", counts(summary)));
}

/// Says what came of it.
pub fn stopped(summary: &Summary) {
    let by = summary.signal.map(|signal| format!("by {signal}: ")).unwrap_or_default();
    err(&format!("stopped  {by}{}\n", counts(summary)));
}

/// Most partitions that the closing line names one by one.
const PARTITIONS_NAMED: usize = 16;

fn counts(summary: &Summary) -> String {
    let lost = if summary.lost > 0 { format!(", {} lost", grouped(summary.lost)) } else { String::new() };
    let more = summary.left.len().saturating_sub(PARTITIONS_NAMED);
    let named = summary.left.iter().take(PARTITIONS_NAMED);
    let mut left: Vec<String> = named
        .map(|(partition, left)| format!("{} left of {}", grouped(*left), escape(&partition.to_string())))
        .collect();
    if more > 0 {
        let rest: u64 = summary.left.iter().skip(PARTITIONS_NAMED).map(|(_, left)| left).sum();
        left.push(format!("{} left of {more} more", grouped(rest)));
    }
    let left = if left.is_empty() { String::new() } else { format!("; {}", left.join(", ")) };
    format!(
        "{} records committed, {} dead letters{lost}, {} of {} partitions committed to their end{left}",
        grouped(summary.records),
        grouped(summary.dead_letters),
        summary.complete,
        summary.partitions
    )
}

/// Thousands set apart by commas.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Says what the demo is about to do.
pub fn demo_starts(output: &Path, records: u64) {
    err(&format!(
        "demo     {} search requests → a Kafka broker inside this process → the `search` collector (WebAssembly)\n         \
         → topic search-results, JSON lines and the `csv` sink (WebAssembly), below {}\n\
         joining  the consumer group: this broker takes some seconds for it\n",
        grouped(records),
        escape(&output.display().to_string())
    ));
}

/// Where nothing can be drawn over, a line is printed every so many pictures.
const PICTURES_PER_LINE: u64 = 10;

/// The demo's live progress: a bar on a terminal, a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    pictures: Counter,
}

impl Progress {
    /// Begins at nothing of `records`.
    pub fn start(records: u64) -> Self {
        let bar = ProgressBar::new(records);
        if let Ok(style) = ProgressStyle::with_template("running  {bar:30} {pos}/{len} committed") {
            bar.set_style(style);
        }
        Self { bar, pictures: Counter::default() }
    }

    /// Draws how far it is.
    pub fn show(&self, committed: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(committed);
            return;
        }
        if self.pictures.get().is_multiple_of(PICTURES_PER_LINE) {
            let all = grouped(self.bar.length().unwrap_or(0));
            err(&format!("running  {} of {all} committed\n", grouped(committed)));
        }
        self.pictures.add(1);
    }

    /// Leaves the last picture standing.
    pub fn finish(&self) {
        self.bar.abandon();
    }
}

/// Says where the results lie and what was committed.
pub fn demo_ends(output: &Path, counters: &Counters, summary: &Summary) {
    let mut text = format!("done     {}\n", counts(summary));
    for (name, sink) in counters.sinks() {
        let _ = writeln!(
            text,
            "sink     {:<16} {:>7} delivered, {} dead-lettered",
            escape(&name),
            grouped(sink.delivered.get()),
            grouped(sink.dead_lettered.get())
        );
    }
    let _ = writeln!(
        text,
        "dead     {:>24} records, in topic search-requests_dlq: lines that were no request",
        grouped(counters.dead_records.get())
    );
    for (partition, place) in counters.partitions() {
        let _ = writeln!(text, "offset   {:<24} committed at {}", escape(&partition.to_string()), place.committed);
    }
    let output = escape(&output.display().to_string());
    let _ =
        writeln!(text, "results  {output}/files/*.jsonl and {output}/csv/*.csv, configured by {output}/tidegate.yaml");
    err(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicPartition;

    #[test]
    fn the_closing_line_reads_as_designed() {
        let mut summary =
            Summary { records: 48_210, dead_letters: 3, complete: 12, partitions: 12, ..Summary::default() };
        assert_eq!(
            counts(&summary),
            "48,210 records committed, 3 dead letters, 12 of 12 partitions committed to their end"
        );
        summary.lost = 1_200;
        assert!(counts(&summary).contains("3 dead letters, 1,200 lost, 12 of 12"));
        summary.left = (0..18).map(|number| (TopicPartition::new("orders", number), 1_000)).collect();
        let line = counts(&summary);
        assert!(line.contains("committed to their end; 1,000 left of orders[0], 1,000 left of orders[1],"), "{line}");
        assert!(line.ends_with("1,000 left of orders[15], 2,000 left of 2 more"), "{line}");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
