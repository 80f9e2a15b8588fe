//! What the user reads. Answers go to standard output, everything else to standard error; no colours, so that `NO_COLOR`
//! is always kept. Text that came from a guest, a record or a server is escaped before a terminal sees it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::check::{Line, Report};
use super::log;
use super::memory::MemoryReport;
use crate::model::{Fault, hides};
use crate::plugin::Limit;

pub mod letters;
pub mod live;

/// Prints a JSON document to standard output.
pub fn json(value: &Value) {
    out(&format!("{value:#}\n"));
}

/// Prints faults to standard error, an empty line apart.
pub fn faults(faults: &[Fault]) {
    err(&faults.iter().map(fault).collect::<Vec<_>>().join("\n"));
}

/// Prints what a check found: a table or JSON to standard output, and beside the table its faults to standard error.
pub fn report(report: &Report, as_json: bool) {
    if as_json {
        return json(&report_value(report));
    }
    out(&table(&report.lines));
    out(&limits(&report.lines));
    let found: Vec<Fault> = report.faults().cloned().collect();
    if let Some(shares) = report.memory.as_ref().filter(|_| found.is_empty()) {
        out(&memory(shares));
    }
    faults(&found);
}

/// Gives native code to the process that asked for it.
pub fn code(code: &[u8]) {
    let _ = std::io::stdout().lock().write_all(code);
}

/// Tells the process that asked what is wrong, in one line.
pub fn complaint(words: &str) {
    err(&format!("{}\n", escape(words)));
}

/// Nobody may be listening any more; there is no one left to tell.
fn out(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn err(text: &str) {
    log::write(text);
}

fn fault(fault: &Fault) -> String {
    let mut text = format!("error: {}\n", indented(&fault.message));
    for cause in &fault.causes {
        // A guest's last lines are no cause; they stand beside it.
        let label = if cause.starts_with("last output:") { "" } else { "Caused by: " };
        let _ = writeln!(text, "  {label}{}", indented(cause));
    }
    if let Some(hint) = &fault.hint {
        let _ = write!(text, "\nhint: {}\n", indented(hint));
    }
    text
}

/// Escaped, with later lines set in.
fn indented(text: &str) -> String {
    text.trim_end().lines().map(escape).collect::<Vec<_>>().join("\n    ")
}

/// Control characters, and characters that turn or hide text, as `\u{1b}`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            c if c.is_control() || hides(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn table(lines: &[Line]) -> String {
    let title = |line: &Line| {
        let parts: Vec<String> = std::iter::once(&line.name).chain(&line.detail).map(|part| escape(part)).collect();
        parts.join("  ")
    };
    let width = lines.iter().map(|line| title(line).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let grants = match line.grants.as_deref() {
            None => String::new(),
            Some([]) => "no grants".into(),
            Some(grants) => escape(&grants.join(", ")),
        };
        let row = format!("{:<8} {:<width$}   {:<5}  {grants}", line.what, title(line), line.verdict());
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

/// Columns of the lines that limits are shown in.
const LIMITS_WIDTH: usize = 110;

/// All limits of the plugins that are sound, so that nobody has to know the defaults; once for those that have the same.
fn limits(lines: &[Line]) -> String {
    let mut alike: Vec<(Vec<String>, &[Limit])> = Vec::new();
    for line in lines.iter().filter(|line| line.fault.is_none() && !line.limits.is_empty()) {
        let who = if line.what == "sink" { escape(&line.name) } else { line.what.to_owned() };
        match alike.iter_mut().find(|(_, limits)| *limits == line.limits) {
            Some((names, _)) => names.push(who),
            None => alike.push((vec![who], &line.limits)),
        }
    }
    let mut text = String::new();
    for (names, limits) in alike {
        let _ = writeln!(text, "\nlimits of {}:", names.join(", "));
        let mut row = String::new();
        for limit in limits {
            let shown = limit.shown();
            if !row.is_empty() && row.len() + shown.len() > LIMITS_WIDTH {
                let _ = writeln!(text, "  {row},");
                row.clear();
            }
            let _ = write!(row, "{}{shown}", if row.is_empty() { "" } else { ", " });
        }
        let _ = writeln!(text, "  {row}");
    }
    text
}

/// What records and plugins may take in memory.
fn memory(memory: &MemoryReport) -> String {
    let rows = memory.rows();
    let width = |column: fn(&(String, String, String)) -> &String| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (name, size) = (width(|row| &row.0), width(|row| &row.1));
    let mut text = "\nmemory:\n".to_owned();
    for (what, bytes, note) in &rows {
        let row = format!("  {:<name$}  {bytes:>size$}  {note}", escape(what));
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

fn report_value(report: &Report) -> Value {
    let lines: Vec<Value> = report
        .lines
        .iter()
        .map(|line| {
            json!({
                "what": line.what,
                "name": line.name,
                "detail": line.detail,
                "verdict": line.verdict(),
                "grants": line.grants,
                "limits": (!line.limits.is_empty())
                    .then(|| line.limits.iter().map(|limit| (limit.key, limit.number())).collect::<BTreeMap<_, _>>()),
                "fault": line.fault.as_ref().map(fault_value),
            })
        })
        .collect();
    let own: Vec<Value> = report.own.iter().map(fault_value).collect();
    json!({ "ok": report.faults().next().is_none(), "lines": lines, "memory": report.memory.as_ref().map(MemoryReport::value), "faults": own })
}

fn fault_value(fault: &Fault) -> Value {
    json!({
        "owner": fault.owner.to_string(),
        "message": fault.message,
        "causes": fault.causes,
        "hint": fault.hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin;

    #[test]
    fn a_fault_reads_as_designed() {
        let text = fault(
            &Fault::plugin("`plugin/csv` failed on search-requests[3]@1042 and the record was dead-lettered")
                .because("guest panic in `deliver`: KeyError: 'order_id' (app.py:18)")
                .because("last output: writing batch of 200")
                .hint("`tidegate dlq show` makes it a test case"),
        );
        insta::assert_snapshot!(text, @"
        error: `plugin/csv` failed on search-requests[3]@1042 and the record was dead-lettered
          Caused by: guest panic in `deliver`: KeyError: 'order_id' (app.py:18)
          last output: writing batch of 200

        hint: `tidegate dlq show` makes it a test case
        ");
    }

    #[test]
    fn what_a_guest_says_cannot_steer_the_terminal() {
        let text = fault(&Fault::plugin("a\u{1b}[2Jb\u{202e}c").because("one\r\ntwo\u{7}\tthree"));
        assert_eq!(text, "error: a\\u{1b}[2Jb\\u{202e}c\n  Caused by: one\n    two\\u{7}    three\n");
    }

    #[test]
    fn limits_are_shown_once_for_all_that_have_the_same() {
        let line = |name: &str, limits: &plugin::Limits| Line {
            limits: limits.all().into_iter().take(3).collect(),
            ..Line::named("sink", name)
        };
        let (usual, more) = (plugin::Limits::default(), plugin::Limits { memory_mebibytes: 512, ..Default::default() });
        let lines = [line("plugin/a", &usual), line("plugin/b", &more), line("plugin/c", &usual)];
        insta::assert_snapshot!(limits(&lines), @"
        limits of plugin/a, plugin/c:
          memory 64 MiB, table elements 262144, call timeout 10 s

        limits of plugin/b:
          memory 512 MiB, table elements 262144, call timeout 10 s
        ");
    }

    #[test]
    fn a_table_keeps_its_columns() {
        let line = |what, name: &str, detail: &[&str]| Line {
            what,
            name: name.into(),
            detail: detail.iter().map(|part| (*part).into()).collect(),
            grants: None,
            limits: Vec::new(),
            fault: None,
        };
        let lines = [
            line("source", "search-requests (group search-out)", &[]),
            Line { grants: Some(Vec::new()), ..line("collect", "search 1.2.0", &["contract 0.1", "1.1 MiB"]) },
            Line { fault: Some(Fault::config("x")), ..line("sink", "filesystem/log", &[]) },
            Line { grants: Some(vec!["directory /out (write)".into()]), ..line("sink", "plugin/csv", &[]) },
        ];
        insta::assert_snapshot!(table(&lines), @"
        source   search-requests (group search-out)    ok
        collect  search 1.2.0  contract 0.1  1.1 MiB   ok     no grants
        sink     filesystem/log                        fault
        sink     plugin/csv                            ok     directory /out (write)
        ");
    }
}
