//! What accounts of users and of staff have in common: a name and an address that nobody else has.

use super::{StoreError, taken};

/// Why an account was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum InsertAccount {
    /// Somebody has this name.
    #[error("the username is taken")]
    UsernameTaken,
    /// Somebody has this address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateAccount {
    /// Somebody else has this address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// There is no such account; whose it would be.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// === impl InsertAccount ===

impl From<sqlx::Error> for InsertAccount {
    fn from(error: sqlx::Error) -> Self {
        match error {
            error if taken(&error, "username_key") => Self::UsernameTaken,
            error if taken(&error, "email_key") => Self::EmailTaken,
            error => Self::Store(error.into()),
        }
    }
}

// === impl UpdateAccount ===

impl From<sqlx::Error> for UpdateAccount {
    fn from(error: sqlx::Error) -> Self {
        if taken(&error, "email_key") { Self::EmailTaken } else { Self::Store(error.into()) }
    }
}
