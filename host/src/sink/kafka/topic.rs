//! What a topic's settings say of the rows that will be written to it (S124a). What refuses every row is refused at the
//! start, what refuses some is said.

use std::time::Duration;

use crate::model::Fault;

/// What a batch takes beyond its records, in bytes: its header is 61, and the rest is for what is added to it.
const BATCH_FRAMING: u64 = 512;
/// The smallest batch of one record without key and value, in bytes.
const SMALLEST_BATCH: u64 = 68;
/// A topic's setting that says whether older records of a key are deleted.
pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
/// How old, and how far ahead, a record's timestamp may be; first the older name for both.
const DIFFERENCE: &str = "message.timestamp.difference.max.ms";
const BEFORE: &str = "message.timestamp.before.max.ms";
const AFTER: &str = "message.timestamp.after.max.ms";

/// One setting.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    /// Nobody has set it, neither for the topic nor for the cluster.
    pub(super) is_default: bool,
}

/// A topic's settings.
#[derive(Default)]
pub(super) struct Settings(pub(super) Vec<Setting>);

impl Settings {
    fn find(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.find(name)?.value.parse().ok()
    }

    /// The largest batch of several records that it takes whole, in bytes.
    pub(super) fn batch_size(&self) -> Option<u64> {
        self.number("max.message.bytes").map(|limit| limit.saturating_sub(BATCH_FRAMING).max(1))
    }

    /// Whether older records of a key are deleted.
    pub(super) fn is_compacted(&self) -> bool {
        self.find(CLEANUP_POLICY).is_some_and(|policy| policy.value.contains("compact"))
    }

    /// Whether the topic takes any row at all.
    ///
    /// # Errors
    /// When it takes none, with what to set.
    pub(super) fn takes_rows(&self, topic: &str) -> Result<(), Fault> {
        if let Some(limit) = self.number("max.message.bytes").filter(|limit| *limit < SMALLEST_BATCH) {
            let message =
                format!("topic `{topic}` takes no record of more than {limit} bytes, which is less than an empty one");
            return Err(Fault::config(message).hint(format!("raise `max.message.bytes` of `{topic}`")));
        }
        Ok(())
    }

    /// Which rows it refuses that other topics take. `own_limit` is the `message.max.bytes` that is configured for the
    /// sink, `replicas` what the topic's best replicated partition has.
    pub(super) fn notes(&self, own_limit: Option<u64>, replicas: usize) -> Vec<String> {
        let mut notes = Vec::new();
        // Brokers of today bound the setting by the replicas that there are, older ones wait for ones that never come.
        if let Some(wanted) = self.number("min.insync.replicas")
            && usize::try_from(wanted).is_ok_and(|wanted| wanted > replicas)
        {
            notes.push(format!(
                "it has {replicas} replicas and wants {wanted} in sync (`min.insync.replicas`): older brokers acknowledge no record"
            ));
        }
        if self.is_compacted() {
            notes.push(
                "it is compacted: it refuses records without a key, and keeps the last one of each key".to_owned(),
            );
        }
        if let (Some(limit), Some(own)) = (self.number("max.message.bytes"), own_limit)
            && limit < own
        {
            notes.push(format!(
                "it refuses records of more than {limit} bytes (`max.message.bytes`), and the sink's `message.max.bytes` is {own}"
            ));
        }
        if self.find("message.timestamp.type").is_none_or(|kind| kind.value != "LogAppendTime") {
            let bound = |name: &str| {
                self.find(name)
                    .filter(|setting| !setting.is_default)
                    .and_then(|setting| setting.value.parse().ok())
                    .map(|milliseconds| (name.to_owned(), Duration::from_millis(milliseconds)))
                    .filter(|(_, bound)| *bound < Duration::from_millis(i64::MAX.unsigned_abs()))
            };
            if let Some((name, bound)) = bound(BEFORE).or_else(|| bound(DIFFERENCE)) {
                let age = shown(bound);
                notes.push(format!("it refuses records whose timestamp is more than {age} old (`{name}`)"));
            }
            if let Some((name, bound)) = bound(AFTER).or_else(|| bound(DIFFERENCE)) {
                let age = shown(bound);
                notes.push(format!("it refuses records whose timestamp is more than {age} ahead (`{name}`)"));
            }
        }
        notes
    }
}

/// A length of time in the largest unit of which it has a whole number.
fn shown(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = units.into_iter().find(|(length, _)| milliseconds >= *length && milliseconds.is_multiple_of(*length));
    unit.map_or_else(|| format!("{milliseconds} ms"), |(length, unit)| format!("{} {unit}", milliseconds / length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn settings(set: &[(&str, &str)]) -> Settings {
        let defaults = [
            (CLEANUP_POLICY, "delete"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "1"),
            ("message.timestamp.type", "CreateTime"),
            (BEFORE, "9223372036854775807"),
            (AFTER, "3600000"),
        ];
        let one =
            |(name, value): (&str, &str), is_default| Setting { name: name.into(), value: value.into(), is_default };
        let unset = defaults.into_iter().filter(|(name, _)| !set.iter().any(|(own, _)| own == name));
        Settings(unset.map(|pair| one(pair, true)).chain(set.iter().map(|pair| one(*pair, false))).collect())
    }

    /// S124a: a topic into which no record fits is refused, and no other.
    #[test]
    fn s124a_a_topic_that_takes_no_row_is_refused() {
        settings(&[("max.message.bytes", "68"), ("min.insync.replicas", "9")]).takes_rows("out").unwrap();
        Settings::default().takes_rows("out").unwrap();
        let fault = settings(&[("max.message.bytes", "67")]).takes_rows("out").unwrap_err();
        assert!(fault.message.contains("67 bytes") && fault.hint.is_some(), "{fault}");
    }

    /// S124a: what the topic refuses beside what others refuse is said; what is as everywhere is not.
    #[test]
    fn s124a_what_a_topic_refuses_is_said() {
        for (set, own, said) in [
            (&[][..], None, &[][..]),
            (&[("max.message.bytes", "1000")], None, &[]),
            (&[("max.message.bytes", "1000")], Some(1000), &[]),
            (&[("max.message.bytes", "1000")], Some(1001), &["more than 1000 bytes"]),
            (&[(CLEANUP_POLICY, "compact,delete")], None, &["without a key"]),
            (&[(BEFORE, "604800000")], None, &["more than 7 d old (`message.timestamp.before.max.ms`)"]),
            (&[(AFTER, "90000")], None, &["more than 90 s ahead"]),
            (
                &[(DIFFERENCE, "1500")],
                None,
                &["more than 1500 ms old (`message.timestamp.difference.max.ms`)", "1500 ms ahead"],
            ),
            (&[("min.insync.replicas", "2")], None, &[]),
            (&[("min.insync.replicas", "3")], None, &["it has 2 replicas and wants 3"]),
            (&[(BEFORE, "9223372036854775807")], None, &[]),
            (&[(BEFORE, "1000"), ("message.timestamp.type", "LogAppendTime")], None, &[]),
        ] {
            let notes = settings(set).notes(own, 2);
            assert_eq!(notes.len(), said.len(), "{set:?}: {notes:?}");
            for (note, words) in notes.iter().zip(said) {
                assert!(note.contains(words), "{note}");
            }
        }
        assert_eq!(Settings::default().notes(Some(1), 1), Vec::<String>::new());
    }
}
