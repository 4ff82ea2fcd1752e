//! Every column of every table, whatever the engine.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

/// A column, its values as bytes, each followed by a line feed.
pub(super) struct Column {
    /// `table.column`
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

const OF_SQLITE: &str = "SELECT m.name, c.name, 'CAST(\"' || c.name || '\" AS BLOB)'
    FROM sqlite_master m JOIN pragma_table_info(m.name) c
    WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' ORDER BY m.name, c.cid";
const OF_POSTGRES: &str = "SELECT table_name::text, column_name::text, CASE data_type
        WHEN 'bytea' THEN format('%I', column_name) ELSE format('convert_to(%I::text, ''UTF8'')', column_name) END
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";

/// Reads the whole database of a gateway that has stopped.
pub(super) async fn read(url: &str) -> Vec<Column> {
    if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        let listed = sqlx::query_as(OF_SQLITE).fetch_all(&mut connection).await.unwrap();
        let mut found = Vec::new();
        for (table, columns) in by_table(listed) {
            let rows = sqlx::query(AssertSqlSafe(select(&table, &columns)));
            let rows = rows.fetch_all(&mut connection).await.unwrap();
            found.extend(gathered(&table, &columns, |n| rows.iter().map(move |row| row.get(n)).collect()));
        }
        connection.close().await.unwrap();
        return found;
    }
    let mut connection = PgConnection::connect(url).await.unwrap();
    let listed = sqlx::query_as(OF_POSTGRES).fetch_all(&mut connection).await.unwrap();
    let mut found = Vec::new();
    for (table, columns) in by_table(listed) {
        let rows = sqlx::query(AssertSqlSafe(select(&table, &columns)));
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        found.extend(gathered(&table, &columns, |n| rows.iter().map(move |row| row.get(n)).collect()));
    }
    connection.close().await.unwrap();
    found
}

type Columns = Vec<(String, String)>;

/// The columns of each table, and how their bytes are asked for.
fn by_table(listed: Vec<(String, String, String)>) -> BTreeMap<String, Columns> {
    let mut tables = BTreeMap::<String, Columns>::new();
    for (table, column, bytes) in listed {
        tables.entry(table).or_default().push((column, bytes));
    }
    tables
}

fn select(table: &str, columns: &Columns) -> String {
    let wanted: Vec<&str> = columns.iter().map(|(_, bytes)| bytes.as_str()).collect();
    format!("SELECT {} FROM \"{table}\"", wanted.join(", "))
}

fn gathered(table: &str, columns: &Columns, values: impl Fn(usize) -> Vec<Option<Vec<u8>>>) -> Vec<Column> {
    let named = columns.iter().enumerate().map(|(n, (column, _))| {
        let mut bytes = Vec::new();
        for value in values(n).into_iter().flatten() {
            bytes.extend_from_slice(&value);
            bytes.push(b'\n');
        }
        Column { name: format!("{table}.{column}"), bytes }
    });
    named.collect()
}
