//! What a process takes of its machine over time: memory, threads and open files.

use std::fmt;
use std::fs;

/// How much more memory the last tenth of a run may take than its second: the first fills caches and pools.
const MEMORY_GROWTH: f64 = 1.25;
/// Threads and files that may be there more: a pool that reaches its size late. What leaks with each rebalance exceeds it.
const SLACK: f64 = 4.0;
pub const TENTHS: usize = 10;
/// The tenth that the last one is held against.
const BASELINE: usize = 1;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub memory: f64,
    pub threads: f64,
    pub files: f64,
    /// Records written and not yet committed.
    pub behind: f64,
}

impl Sample {
    /// Reads `/proc`; `None` when the process has ended.
    pub fn of(pid: u32, behind: u64) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let (memory, threads) = (number("VmRSS:")? / 1024.0, number("Threads:")?);
        Some(Self { memory, threads, files: files as f64, behind: behind as f64 })
    }
}

/// The samples of one tenth of the time.
#[derive(Clone, Debug, Default)]
pub struct Tenth(Vec<Sample>);

impl Tenth {
    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    fn mean(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.0.iter().map(of).sum::<f64>() / self.0.len() as f64
    }

    fn most(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.0.iter().map(of).fold(0.0, f64::max)
    }

    pub fn head() -> String {
        format!(
            "{:>5} {:>9} {:>8} {:>13} {:>12} {:>11} {:>10} {:>12}",
            "tenth", "mean MiB", "max MiB", "mean threads", "max threads", "mean files", "max files", "most behind"
        )
    }
}

impl fmt::Display for Tenth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9.1} {:>8.1} {:>13.1} {:>12} {:>11.1} {:>10} {:>12}",
            self.mean(|sample| sample.memory),
            self.most(|sample| sample.memory),
            self.mean(|sample| sample.threads),
            self.most(|sample| sample.threads),
            self.mean(|sample| sample.files),
            self.most(|sample| sample.files),
            self.most(|sample| sample.behind),
        )
    }
}

/// Holds the last tenth against the second. Memory may grow by [`MEMORY_GROWTH`]. Threads and files come and go with the
/// partitions, so that their mean at the end is held against their maximum, with [`SLACK`].
///
/// # Errors
/// What has grown.
pub fn judge(tenths: &[Tenth]) -> Result<String, String> {
    let (Some(early), Some(late)) = (tenths.get(BASELINE), tenths.last()) else { return Err("no samples".into()) };
    if early.0.is_empty() || late.0.is_empty() {
        return Err("a tenth without samples".into());
    }
    let ratio = late.mean(|sample| sample.memory) / early.mean(|sample| sample.memory);
    let mut grown = Vec::new();
    if ratio > MEMORY_GROWTH {
        grown.push(format!("memory grew to {ratio:.2} of the second tenth's"));
    }
    let mut hold = |what: &str, of: &dyn Fn(&Sample) -> f64| {
        let (most, mean) = (early.most(of), late.mean(of));
        if mean > most + SLACK {
            grown.push(format!("{mean:.1} {what} on average in the last tenth, at most {most} in the second"));
        }
    };
    hold("threads", &|sample| sample.threads);
    hold("open files", &|sample| sample.files);
    match grown.is_empty() {
        true => Ok(format!("memory of the last tenth: {ratio:.2} of the second's; threads and files did not grow")),
        false => Err(grown.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenths(late: Sample) -> Vec<Tenth> {
        let usual = Sample { memory: 100.0, threads: 20.0, files: 40.0, behind: 0.0 };
        let mut tenths = vec![Tenth(vec![usual, Sample { threads: 24.0, ..usual }]); TENTHS];
        tenths[TENTHS - 1] = Tenth(vec![late]);
        tenths
    }

    #[test]
    fn what_grows_is_named() {
        let flat = Sample { memory: 124.0, threads: 23.0, files: 40.0, behind: 9.0 };
        assert!(judge(&tenths(flat)).is_ok());
        for (grown, word) in [
            (Sample { memory: 126.0, ..flat }, "memory"),
            (Sample { threads: 29.0, ..flat }, "threads"),
            (Sample { files: 45.0, ..flat }, "open files"),
        ] {
            let refused = judge(&tenths(grown));
            assert!(refused.as_ref().is_err_and(|why| why.contains(word)), "{refused:?}");
        }
    }
}
