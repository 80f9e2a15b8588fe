//! Durations and sizes with a unit, such as `5s` and `64MiB`, beside the plain numbers (`interval_seconds: 5`).
//!
//! An option's name says in which unit its plain number counts, and with it that a value may have a unit of its own.
//! That holds for every option that is a number; what a plugin or librdkafka is passed stays as it was written.

/// In what an option counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `…_seconds`.
    Seconds,
    /// `…_bytes`.
    Bytes,
    /// `…_mebibytes`.
    Mebibytes,
}

/// A value in its option's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A whole number of it.
    Whole(u64),
    /// Any other number.
    Part(f64),
}

/// Units of time and their microseconds.
const TIMES: [(&str, u64); 8] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("sec", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Units of size and their bytes. `M` alone is not among them: it is 1,000,000 here and 1,048,576 there.
const SIZES: [(&str, u64); 14] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

impl Unit {
    /// In what the option of that name counts; `None` for any other number.
    pub fn of(option: &str) -> Option<Self> {
        option.split('_').find_map(|word| match word {
            "seconds" => Some(Self::Seconds),
            "bytes" => Some(Self::Bytes),
            "mebibytes" => Some(Self::Mebibytes),
            _ => None,
        })
    }

    /// What else the option takes, in words.
    pub fn examples(self) -> &'static str {
        match self {
            Self::Seconds => "a duration such as `250ms`, `5s` or `1h30m`",
            Self::Bytes | Self::Mebibytes => "a size such as `64MiB` or `1GiB`",
        }
    }

    /// What a value with a unit looks like, as a regular expression.
    pub fn pattern(self) -> String {
        const NUMBER: &str = "[0-9]+(\\.[0-9]+)?";
        let any = |units: &[(&str, u64)]| units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("|");
        match self {
            Self::Seconds => format!("^({NUMBER} ?({}))+$", any(&TIMES)),
            Self::Bytes | Self::Mebibytes => format!("^{NUMBER} ?({})$", any(&SIZES)),
        }
    }

    /// Reads a value that has a unit of its own; `None` for anything else.
    pub fn read(self, text: &str) -> Option<Amount> {
        let (units, in_one) = match self {
            Self::Seconds => (&TIMES[..], 1_000_000),
            Self::Bytes => (&SIZES[..], 1),
            Self::Mebibytes => (&SIZES[..], 1 << 20),
        };
        let (mut total, mut rest) = (0_u128, text.trim());
        loop {
            let (amount, after) = part(rest, units)?;
            total = total.checked_add(amount)?;
            rest = after;
            match self {
                _ if rest.is_empty() => break,
                Self::Seconds => {}
                Self::Bytes | Self::Mebibytes => return None,
            }
        }
        // In billionths of the smallest unit.
        let one = in_one * BILLION;
        if total % one == 0 {
            return u64::try_from(total / one).ok().map(Amount::Whole);
        }
        #[allow(clippy::cast_precision_loss, reason = "an option that takes fractions is an `f64`")]
        Some(Amount::Part(total as f64 / one as f64))
    }
}

const BILLION: u128 = 1_000_000_000;

/// The first number with its unit, in billionths of the smallest unit, and what follows it.
fn part<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u128, &'t str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(letters);
    let (_, factor) = units.iter().find(|(known, _)| *known == name)?;
    let billionths = format!("{fraction:0<9}").parse::<u128>().ok()?;
    let number = whole.parse::<u64>().ok()?;
    let number = u128::from(number).checked_mul(BILLION)?.checked_add(billionths)?;
    Some((number.checked_mul(u128::from(*factor))?, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_options_name_says_in_what_it_counts() {
        for (name, unit) in [
            ("interval_seconds", Some(Unit::Seconds)),
            ("ttl_seconds", Some(Unit::Seconds)),
            ("max_bytes", Some(Unit::Bytes)),
            ("output_bytes_per_second", Some(Unit::Bytes)),
            ("payload_mebibytes_per_call", Some(Unit::Mebibytes)),
            ("output_lines_per_second", None),
            ("max_records", None),
            ("concurrency", None),
        ] {
            assert_eq!(Unit::of(name), unit, "{name}");
        }
    }

    #[test]
    fn a_value_has_a_unit_of_its_own() {
        for (unit, text, amount) in [
            (Unit::Seconds, "5s", Amount::Whole(5)),
            (Unit::Seconds, "250ms", Amount::Part(0.25)),
            (Unit::Seconds, "100ms", Amount::Part(0.1)),
            (Unit::Seconds, "1.5s", Amount::Part(1.5)),
            (Unit::Seconds, "2 min", Amount::Whole(120)),
            (Unit::Seconds, "1h", Amount::Whole(3600)),
            (Unit::Seconds, "1h30m", Amount::Whole(5400)),
            (Unit::Seconds, "1m0.5s", Amount::Part(60.5)),
            (Unit::Seconds, "7d", Amount::Whole(604_800)),
            (Unit::Seconds, "10us", Amount::Part(0.000_01)),
            (Unit::Seconds, "0s", Amount::Whole(0)),
            (Unit::Bytes, "64MiB", Amount::Whole(64 << 20)),
            (Unit::Bytes, "64Mi", Amount::Whole(64 << 20)),
            (Unit::Bytes, "64 MB", Amount::Whole(64_000_000)),
            (Unit::Bytes, "1.5KiB", Amount::Whole(1536)),
            (Unit::Bytes, "100B", Amount::Whole(100)),
            (Unit::Bytes, "0.5B", Amount::Part(0.5)),
            (Unit::Mebibytes, "1GiB", Amount::Whole(1024)),
            (Unit::Mebibytes, "512KiB", Amount::Part(0.5)),
            (Unit::Mebibytes, "16MiB", Amount::Whole(16)),
        ] {
            assert_eq!(unit.read(text), Some(amount), "{text}");
        }
        for (unit, text) in [
            (Unit::Seconds, ""),
            (Unit::Seconds, "5"),
            (Unit::Seconds, "s"),
            (Unit::Seconds, "-5s"),
            (Unit::Seconds, "5S"),
            (Unit::Seconds, "5 s s"),
            (Unit::Seconds, "5weeks"),
            (Unit::Seconds, ".5s"),
            (Unit::Seconds, "5.s"),
            (Unit::Seconds, "1.2.3s"),
            (Unit::Seconds, "0.0000000001s"),
            (Unit::Seconds, "5MiB"),
            (Unit::Seconds, "99999999999999999999d"),
            (Unit::Bytes, "5M"),
            (Unit::Bytes, "5s"),
            (Unit::Bytes, "1GiB1MiB"),
            (Unit::Bytes, "18446744073709551615TiB"),
            (Unit::Bytes, "１MiB"),
        ] {
            assert_eq!(unit.read(text), None, "{text}");
        }
    }
}
