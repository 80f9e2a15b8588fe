use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the sink is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file as the guest sees it; its name may hold `{topic}`, `{partition}` and `{slot}`.
    pub path: String,
    /// The columns, in order.
    #[serde(default = "Column::all_of_quix")]
    pub columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    Key,
    Value,
    Timestamp,
    Topic,
    Partition,
    Offset,
    Ordinal,
}

impl Column {
    fn all_of_quix() -> Vec<Self> {
        vec![Self::Key, Self::Value, Self::Timestamp, Self::Topic, Self::Partition, Self::Offset]
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Timestamp => "timestamp",
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Ordinal => "ordinal",
        }
    }
}

impl Options {
    /// The directory, and how the files in it are named.
    pub fn place(&self) -> Result<(PathBuf, Template), String> {
        if self.columns.is_empty() {
            return Err("`columns` names no column".into());
        }
        let path = Path::new(&self.path);
        let (Some(directory), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
            return Err(format!(
                "`path` must name a file in a granted directory, such as `/out/rows.csv`, not `{}`",
                self.path
            ));
        };
        if directory.to_string_lossy().contains(['{', '}']) {
            return Err(format!("only the file's name may hold `{{…}}`, not the directory `{}`", directory.display()));
        }
        Ok((directory.to_owned(), Template::parse(&name.to_string_lossy())?))
    }
}

/// A file's name with places for what tells batches apart.
#[derive(Debug)]
pub struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Partition,
    Slot,
}

impl Template {
    fn parse(name: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some((text, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or_else(|| format!("`{{` in `{name}` is never closed"))?;
            parts.push(Part::Text(text.to_owned()));
            parts.push(match word {
                "topic" => Part::Topic,
                "partition" => Part::Partition,
                "slot" => Part::Slot,
                _ => {
                    return Err(format!(
                        "`{{{word}}}` in `{name}` is none of `{{topic}}`, `{{partition}}`, `{{slot}}`"
                    ));
                }
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Whether two instances never name the same file: a topic-partition belongs to one of them at a time.
    pub fn is_unique_per_slot(&self) -> bool {
        let has = |part| self.0.contains(&part);
        has(Part::Slot) || (has(Part::Topic) && has(Part::Partition))
    }

    pub fn file_name(&self, topic: &str, partition: i32, slot: u32) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                // Kafka allows no `/` in a topic's name.
                Part::Topic => topic.to_owned(),
                Part::Partition => partition.to_string(),
                Part::Slot => slot.to_string(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: &str) -> Options {
        Options { path: path.into(), columns: Column::all_of_quix() }
    }

    #[test]
    fn the_name_of_a_file_follows_the_batch() {
        let Ok((directory, template)) = options("/out/{topic}-{partition}.csv").place() else { panic!("a good path") };
        assert_eq!(directory, Path::new("/out"));
        assert_eq!(template.file_name("orders", 3, 1), "orders-3.csv");
        assert!(template.is_unique_per_slot());
    }

    #[test]
    fn two_instances_share_a_file_unless_its_name_tells_them_apart() {
        for (path, unique) in
            [("/o/rows.csv", false), ("/o/{partition}", false), ("/o/{topic}", false), ("/o/{slot}", true)]
        {
            let place = options(path).place().map(|(_, template)| template.is_unique_per_slot());
            assert_eq!(place, Ok(unique), "{path}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_refused_with_the_reason() {
        for (path, reason) in [
            ("rows.csv", "`path` must name a file in a granted directory, such as `/out/rows.csv`, not `rows.csv`"),
            ("/", "`path` must name a file in a granted directory, such as `/out/rows.csv`, not `/`"),
            ("/out/{topic}/rows.csv", "only the file's name may hold `{…}`, not the directory `/out/{topic}`"),
            ("/out/{day}.csv", "`{day}` in `{day}.csv` is none of `{topic}`, `{partition}`, `{slot}`"),
            ("/out/{topic.csv", "`{` in `{topic.csv` is never closed"),
        ] {
            assert_eq!(options(path).place().err().as_deref(), Some(reason));
        }
    }
}
