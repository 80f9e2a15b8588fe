//! The tables of a call's rows, as they are known or as the catalog says.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Error;

use super::plan::{Found, plain};
use super::session::Session;
use super::sqlstate::{self, Class};
use super::{PostgresSink, rows, table};
use crate::model::{CallError, FailureKind};

impl PostgresSink {
    /// The tables of the rows. With `anew` the catalog is asked for those too that are known.
    pub(super) async fn tables(
        &self,
        session: &mut Session,
        rows: &[rows::Row<'_>],
        anew: bool,
    ) -> Result<HashMap<String, Found>, CallError> {
        let mut tables: HashMap<String, Found> = HashMap::new();
        for row in rows {
            if tables.contains_key(&row.table) {
                continue;
            }
            if let Some(known) = self.known.get(&row.table).filter(|_| !anew) {
                tables.insert(row.table.clone(), Ok(known));
                continue;
            }
            // Nothing of the row was sent yet.
            session.begin().await.map_err(|error| self.writer().unavailable(&error))?;
            let found = match table::look_up(session, &row.table, &self.options.key).await {
                Ok(Some(table)) => Ok(Arc::new(table)),
                Ok(None) => Err(format!("there is no table `{}`", plain(&row.table))),
                Err(error) => match sqlstate::classify(&error) {
                    Class::Rows(FailureKind::Reject) => {
                        let words = sqlstate::words(&error, self.address().user());
                        Err(format!("table `{}` cannot be looked at: {words}", plain(&row.table)))
                    }
                    class => return Err(self.not_looked_up(class, &error)),
                },
            };
            self.known.set(&row.table, found.as_ref().ok());
            tables.insert(row.table.clone(), found);
        }
        Ok(tables)
    }

    fn not_looked_up(&self, class: Class, error: &Error) -> CallError {
        let fault = self.writer().fault("could not look up a table", error);
        match class {
            Class::Unavailable | Class::Contention | Class::Rows(FailureKind::Unavailable) => {
                CallError::Unavailable(fault)
            }
            Class::Timeout => CallError::Timeout(fault),
            Class::Unknown | Class::Rows(_) => CallError::Unknown(fault),
        }
    }
}
