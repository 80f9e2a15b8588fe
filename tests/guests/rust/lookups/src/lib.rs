//! A collector that asks a PostgreSQL sink's database.
//!
//! It loads the table `names` when it gets ready. A record `{"id": 7}` yields that and the name for it. A record with a
//! `statement` and its `parameters` yields what the database answers.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_sdk::{
    Collector, Context, Failed, Fault, Payloads, QueryError, ReadyHook, Record, export_collector, query,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// The sink whose database is asked.
    sink: String,
    /// Whether `setup` asks as well, which is too early.
    early: bool,
    /// Whether the table is loaded.
    load: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { sink: "main".into(), early: false, load: true }
    }
}

#[derive(Deserialize)]
struct Name {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Asked {
    Statement { statement: String, parameters: Vec<Value> },
    Id { id: i64 },
}

/// The collector.
pub struct Lookups {
    options: Options,
    names: HashMap<i64, String>,
}

impl Lookups {
    fn load(&mut self) -> Result<(), QueryError> {
        let names: Vec<Name> = query(&self.options.sink, "SELECT id, name FROM names", ())?;
        self.names = names.into_iter().map(|row| (row.id, row.name)).collect();
        Ok(())
    }
}

impl Collector for Lookups {
    fn new(context: &Context) -> Result<Self, String> {
        let mut lookups = Self { options: context.options()?, names: HashMap::new() };
        if lookups.options.early {
            lookups.load().map_err(|error| error.to_string())?;
        }
        Ok(lookups)
    }

    fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed> {
        match record.json()? {
            Asked::Id { id } => {
                let name = self.names.get(&id).ok_or_else(|| Failed::reject(format_args!("nobody has id {id}")))?;
                out.postgres("", &json!({ "id": id, "name": name }))?;
            }
            Asked::Statement { statement, parameters } => {
                let rows: Vec<Value> =
                    query(&self.options.sink, &statement, parameters).map_err(|error| match error {
                        QueryError::Denied(why) => Failed::reject(format_args!("denied: {why}")),
                        QueryError::Failed(why) => Failed::reject(format_args!("failed: {why}")),
                    })?;
                out.kafka(&rows)?;
            }
        }
        Ok(())
    }
}

impl ReadyHook for Lookups {
    fn ready(&mut self) -> Result<(), Fault> {
        if self.options.load { self.load().map_err(Fault::fatal) } else { Ok(()) }
    }
}

export_collector!(Lookups, hooks(ready));
