//! A database on a server, made for one world.

use sqlx::{Connection, Executor, PgConnection};

/// A database made for one world.
pub(crate) struct Database {
    server: String,
    name: String,
}

// === impl Database ===

impl Database {
    pub(crate) async fn from_env() -> Option<Self> {
        let kind = std::env::var("TOLLGATE_TEST_DATABASE").unwrap_or_else(|_| "sqlite".to_owned());
        match kind.as_str() {
            "sqlite" => None,
            "postgres" => Some(Self::create().await),
            other => panic!("TOLLGATE_TEST_DATABASE is sqlite or postgres, not {other:?}"),
        }
    }

    async fn create() -> Self {
        let server = std::env::var("TOLLGATE_TEST_POSTGRES")
            .expect("TOLLGATE_TEST_POSTGRES=postgres://…/ names the server");
        // The server trusts everybody, and takes a password from whoever has one: one more to be kept.
        let server = server.replacen("://postgres@", "://postgres:the-databases-own-word@", 1);
        let name = format!("world_{}", uuid::Uuid::new_v4().simple());
        let database = Self { server, name };
        let mut connection = PgConnection::connect(&format!("{}postgres", database.server)).await.unwrap();
        let create = format!("CREATE DATABASE {}", database.name);
        connection.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
        database
    }

    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.server, self.name)
    }

    pub(crate) async fn remove(self) {
        if let Ok(mut connection) = PgConnection::connect(&format!("{}postgres", self.server)).await {
            let remove = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = connection.execute(sqlx::AssertSqlSafe(remove)).await;
        }
    }
}
