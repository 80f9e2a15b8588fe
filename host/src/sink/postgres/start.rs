//! What the catalog can tell of the configured table is told at the start, and not row by row (S124a).

use sqlx::{Error, Row as _};

use super::plan::{GUARD_TYPE, listed};
use super::pool::{Pools, User};
use super::session::Session;
use super::sqlstate::{self, Class};
use super::table::{self, Table};
use super::{PostgresSink, name, sql};
use crate::model::{CallError, FailureKind, Fault};
use crate::sink::OnTombstone;

/// Of a table and the columns that the sink itself depends on: what it is; which of the columns may not be read, and which
/// not be written; a column besides them that may be; whether any may be changed, and read as well, and rows be deleted; which
/// of the commands row-level security lets through for no row; whether the server takes writes.
const RIGHTS: &str = "
SELECT c.relkind::text,
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($2)
        AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')),
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($2)
        AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT')),
    (SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL ($2)
            AND a.attgenerated = '' AND a.attidentity <> 'a'
            AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT')
            AND ($2 = '{}' OR pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')
                AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))
        ORDER BY a.attnum LIMIT 1),
    pg_catalog.has_any_column_privilege(c.oid, 'INSERT'),
    pg_catalog.has_any_column_privilege(c.oid, 'UPDATE') OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attname <> ALL ($2)),
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attname <> ALL ($2) AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')
            AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attname <> ALL ($2)),
    pg_catalog.has_table_privilege(c.oid, 'DELETE'),
    CASE WHEN pg_catalog.row_security_active(c.oid) THEN ARRAY(
        SELECT command.name FROM (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE'), ('d', 'DELETE'))
            AS command (letter, name)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_policy p
            WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd::text IN ('*', command.letter)
                AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) role
                    WHERE role = 0 OR pg_catalog.pg_has_role(role, 'USAGE'))))
    ELSE '{}' END,
    pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only') = 'on'
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

/// Unique indexes over exactly these columns that `ON CONFLICT` cannot use, and why.
const UNUSABLE: &str = "
SELECT n.relname::text, CASE
    WHEN NOT i.indimmediate THEN 'is deferrable' WHEN i.indpred IS NOT NULL THEN 'is partial' ELSE 'is not valid' END
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class n ON n.oid = i.indexrelid
WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisunique AND i.indexprs IS NULL
    AND $2 = (
        SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\")
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))";

struct Rights {
    kind: String,
    unreadable: Vec<String>,
    unwritable: Vec<String>,
    another: Option<String>,
    inserts: bool,
    updates: bool,
    /// A column that may be changed may be read as well, which `EXCLUDED` takes.
    reads: bool,
    deletes: bool,
    hidden_from: Vec<String>,
    read_only: bool,
}

impl PostgresSink {
    /// Whether rows can be written to the configured table: it takes them, the user may write them, and the key is one.
    pub(super) async fn table_is_fit(&self, pools: &Pools) -> Result<(), CallError> {
        let (configured, key) = (&self.options.table, &self.options.key);
        let quoted = name::table(configured, self.options.qualified_tables)
            .map_err(|why| CallError::Fatal(self.unfit("table", "is no table").because(why)))?;
        let mut session = self.session(pools, User::Rows).await?;
        let Some(rights) = self.rights(&mut session, &quoted).await? else {
            let message = format!(
                "`{}` names `{configured}`, which is no table of `{}`",
                self.option("table"),
                self.address().shown
            );
            let hint = "create the table, or correct its name; its case counts, and a schema that is not on the search path has to be named with `qualified_tables`";
            return Err(CallError::Fatal(Fault::config(message).hint(hint)));
        };
        if rights.read_only {
            let message = format!("`postgres/{}` takes no writes at `{}`", self.name, self.address().shown);
            let hint = format!("name the primary server in `{}`, or let the role write", self.option("dsn"));
            let fault = Fault::destination(message).because("the server or the session is read-only").hint(hint);
            return Err(CallError::Unavailable(fault));
        }
        self.kind_is_fit(&rights)?;
        session.begin().await.map_err(|error| self.unreached(&error))?;
        let table = table::look_up(&mut session, &quoted, key).await.map_err(|error| self.unreached(&error))?;
        let Some(table) = table else {
            return Err(CallError::Fatal(self.unfit("table", "is gone")));
        };
        self.columns_are_fit(&table, &quoted)?;
        self.rights_suffice(&rights, &quoted)?;
        if !key.is_empty() && !table.has_key {
            return Err(self.no_index(&mut session, &quoted).await);
        }
        self.server_agrees(&mut session, &table, &rights, &quoted).await
    }

    async fn rights(&self, session: &mut Session, quoted: &str) -> Result<Option<Rights>, CallError> {
        let mut named = self.options.key.clone();
        named.extend(Some(self.options.upsert.guard.clone()).filter(|guard| !guard.is_empty()));
        let ask = async {
            session.begin().await?;
            let rows = session.fetch(sqlx::query(RIGHTS).bind(quoted).bind(named)).await;
            let ended = session.close("ROLLBACK").await;
            let rows = rows?;
            ended?;
            let Some(row) = rows.first() else { return Ok(None) };
            Ok(Some(Rights {
                kind: row.try_get(0)?,
                unreadable: row.try_get(1)?,
                unwritable: row.try_get(2)?,
                another: row.try_get(3)?,
                inserts: row.try_get(4)?,
                updates: row.try_get(5)?,
                reads: row.try_get(6)?,
                deletes: row.try_get(7)?,
                hidden_from: row.try_get(8)?,
                read_only: row.try_get(9)?,
            }))
        };
        ask.await.map_err(|error: Error| {
            if sqlstate::is_missing_privilege(&error) {
                let why = sqlstate::words(&error, self.address().user());
                let hint = "grant it to the user: GRANT USAGE ON SCHEMA ... TO ...";
                CallError::Fatal(self.unfit("table", "may not be looked at").because(why).hint(hint))
            } else {
                self.unreached(&error)
            }
        })
    }

    fn kind_is_fit(&self, rights: &Rights) -> Result<(), CallError> {
        let what = match rights.kind.as_str() {
            "r" | "p" | "v" => return Ok(()),
            "f" if self.options.key.is_empty() => return Ok(()),
            "f" => {
                let hint = "leave `key` out, so that every row is inserted, or write to the server behind it";
                let what = "is a foreign table, which no row can replace another in";
                return Err(CallError::Fatal(self.unfit("key", what).hint(hint)));
            }
            "m" => "is a materialized view",
            "S" => "is a sequence",
            "i" | "I" => "is an index",
            "c" => "is a type",
            _ => "is no table",
        };
        Err(CallError::Fatal(self.unfit("table", what).hint("name a table, or a view that takes rows")))
    }

    fn columns_are_fit(&self, table: &Table, quoted: &str) -> Result<(), CallError> {
        let (configured, guard) = (&self.options.table, &self.options.upsert.guard);
        for name in &self.options.key {
            let Some(column) = table.column(name) else {
                let message = format!("`{}` names `{name}`, which is no column of `{configured}`", self.option("key"));
                return Err(CallError::Fatal(Fault::config(message).hint("correct the name; its case counts")));
            };
            if column.generated {
                let what = format!("cannot have `{name}`: the server fills it by itself (`GENERATED ALWAYS`)");
                let hint = format!(
                    "ALTER TABLE {quoted} ALTER COLUMN {} SET GENERATED BY DEFAULT, or name columns that rows give",
                    name::quoted(name)
                );
                return Err(CallError::Fatal(self.unfit("key", &what).hint(hint)));
            }
        }
        if let Some(name) = self.options.encodings.keys().find(|name| table.column(name).is_none()) {
            let message =
                format!("`{}` names `{name}`, which is no column of `{configured}`", self.option("encodings"));
            return Err(CallError::Fatal(Fault::config(message).hint("correct the name; its case counts")));
        }
        let is_guard = |column: &table::Column| column.type_name == GUARD_TYPE && !column.generated;
        if !guard.is_empty() && !table.column(guard).is_some_and(is_guard) {
            let message = format!(
                "`{}`: table `{configured}` has no column `{guard}` of type `{GUARD_TYPE}` that can be written",
                self.option("upsert.guard")
            );
            let hint = format!("add it: ALTER TABLE {quoted} ADD COLUMN {} {GUARD_TYPE}", name::quoted(guard));
            return Err(CallError::Fatal(Fault::config(message).hint(hint)));
        }
        Ok(())
    }

    fn rights_suffice(&self, rights: &Rights, quoted: &str) -> Result<(), CallError> {
        let (keyed, deletes) = (!self.options.key.is_empty(), self.options.on_tombstone == OnTombstone::Delete);
        let missing = |right: &str, of: &[String]| {
            let columns: Vec<String> = of.iter().map(|column| name::quoted(column)).collect();
            let columns = if of.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
            let what = format!("may not be written by the user of the address: it lacks `{right}{columns}`");
            let hint = format!("GRANT {right}{columns} ON {quoted} TO ...");
            Err(CallError::Fatal(self.unfit("table", &what).hint(hint)))
        };
        if !rights.inserts {
            return missing("INSERT", &[]);
        }
        if !rights.unwritable.is_empty() {
            return missing("INSERT", &rights.unwritable);
        }
        if keyed && !rights.updates {
            return missing("UPDATE", &[]);
        }
        if keyed && !rights.unreadable.is_empty() {
            return missing("SELECT", &rights.unreadable);
        }
        if keyed && !rights.reads {
            return missing("SELECT", &[]);
        }
        if deletes && !rights.deletes {
            return missing("DELETE", &[]);
        }
        let needed = |command: &String| match command.as_str() {
            "INSERT" => true,
            "DELETE" => deletes,
            _ => keyed,
        };
        if let Some(command) = rights.hidden_from.iter().find(|command| needed(command)) {
            let what =
                format!("has row-level security, and no policy that permits the user of the address to {command}");
            let hint = format!("CREATE POLICY ... ON {quoted} FOR {command} TO ... or let the user bypass it");
            return Err(CallError::Fatal(self.unfit("table", &what).hint(hint)));
        }
        Ok(())
    }

    async fn no_index(&self, session: &mut Session, quoted: &str) -> CallError {
        let key = &self.options.key;
        let mut sorted = key.clone();
        sorted.sort_unstable();
        let ask = async {
            session.begin().await?;
            let rows = session.fetch(sqlx::query(UNUSABLE).bind(quoted).bind(sorted)).await?;
            session.close("ROLLBACK").await?;
            let near = |row: &sqlx::postgres::PgRow| {
                Ok(format!("`{}` {}", row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?))
            };
            rows.first().map(near).transpose()
        };
        let near = match ask.await {
            Ok(near) => near,
            Err(error) => return self.unreached(&error),
        };
        let message = format!(
            "`{}`: table `{}` has no unique index over exactly {}",
            self.option("key"),
            self.options.table,
            listed(key)
        );
        let columns: Vec<String> = key.iter().map(|column| name::quoted(column)).collect();
        let hint = format!("create it: CREATE UNIQUE INDEX ON {quoted} ({})", columns.join(", "));
        let fault = Fault::config(message).hint(hint);
        CallError::Fatal(match near {
            Some(near) => fault.because(format!("{near}, so that it does not count")),
            None => fault,
        })
    }

    /// The server itself looks at the statements, as before running them: what is behind a view, what a foreign table takes.
    async fn server_agrees(
        &self,
        session: &mut Session,
        table: &Table,
        rights: &Rights,
        quoted: &str,
    ) -> Result<(), CallError> {
        let (key, guard) = (&self.options.key, Some(self.options.upsert.guard.as_str()).filter(|it| !it.is_empty()));
        let names = key.iter().map(String::as_str).chain(guard).chain(rights.another.as_deref());
        let encodings = &self.options.encodings;
        let column = |name| {
            let known = table.column(name)?;
            Some(sql::Column { name, type_name: &known.type_name, encoding: encodings.get(name).copied() })
        };
        let mut columns: Vec<sql::Column<'_>> = names.filter_map(column).collect();
        for name in encodings.keys() {
            if columns.iter().all(|column| column.name != name) {
                columns.extend(column(name));
            }
        }
        let mut statements = vec![sql::insert(quoted, &columns, key, guard)];
        if self.options.on_tombstone == OnTombstone::Delete {
            let keys: Vec<sql::Column<'_>> = key.iter().map(String::as_str).chain(guard).filter_map(column).collect();
            statements.push(sql::delete(quoted, &keys, guard));
        }
        for statement in statements {
            session.begin().await.map_err(|error| self.unreached(&error))?;
            let looked_at = session.execute(&format!("EXPLAIN {statement}"), "[]").await;
            let ended = session.close("ROLLBACK").await;
            if let Err(error) = looked_at {
                match sqlstate::classify(&error) {
                    Class::Rows(FailureKind::Reject) => {}
                    // A migration holds it, say: its rows will wait, and a start need not.
                    Class::Rows(FailureKind::Unavailable) | Class::Timeout => {
                        let reason = sqlstate::words(&error, self.address().user());
                        tracing::warn!(
                            sink = self.place(),
                            table = self.options.table,
                            reason,
                            "the table cannot be looked at now; whether it takes rows is seen when they are written"
                        );
                        continue;
                    }
                    _ => return Err(self.unreached(&error)),
                }
                let why = sqlstate::words(&error, self.address().user());
                let hint = sqlstate::hint(&error).unwrap_or_else(|| "name a table that takes these rows".to_owned());
                let what = "takes no rows as the sink writes them";
                return Err(CallError::Fatal(self.unfit("table", what).because(why).hint(hint)));
            }
            ended.map_err(|error| self.unreached(&error))?;
        }
        Ok(())
    }

    /// The configuration is at fault: the option cannot be used with the table.
    fn unfit(&self, option: &str, what: &str) -> Fault {
        Fault::config(format!("`{}`: `{}` {what}", self.option(option), self.options.table))
    }
}
