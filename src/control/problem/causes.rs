//! What the floors below could not do, as a problem.

use super::Problem;
use crate::identity::IdentifyError;
use crate::quota::QuotaError;
use crate::store::StoreError;
use crate::store::accounts::{InsertAccount, UpdateAccount};
use crate::store::admins::ChangeAdmin;
use crate::store::deleted::RestoreUser;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::NoConnection(_) => Self::Unavailable(error.to_string()),
            StoreError::Damaged { .. } | StoreError::Refused(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<crate::chatlog::LogFull> for Problem {
    fn from(_: crate::chatlog::LogFull) -> Self {
        Self::LogFull
    }
}

impl From<crate::chatlog::StillThere> for Problem {
    fn from(_: crate::chatlog::StillThere) -> Self {
        Self::Busy("what this user said is still on its way to the log")
    }
}

impl From<IdentifyError> for Problem {
    fn from(error: IdentifyError) -> Self {
        match error {
            IdentifyError::Unknown | IdentifyError::Expired => Self::UnknownKey,
            IdentifyError::Disabled => Self::AccountDisabled,
            IdentifyError::StoreDown => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<QuotaError> for Problem {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::NoSuchUser => Self::UnknownKey,
            QuotaError::UsedUp { .. } | QuotaError::StoreDown => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<RestoreUser> for Problem {
    fn from(error: RestoreUser) -> Self {
        match error {
            RestoreUser::NotFound => Self::NotFound("deleted user"),
            RestoreUser::UsernameTaken => Self::Taken("username"),
            RestoreUser::EmailTaken => Self::Taken("e-mail address"),
            RestoreUser::Store(error) => error.into(),
        }
    }
}

impl From<InsertAccount> for Problem {
    fn from(error: InsertAccount) -> Self {
        match error {
            InsertAccount::UsernameTaken => Self::Taken("username"),
            InsertAccount::EmailTaken => Self::Taken("e-mail address"),
            InsertAccount::Store(error) => error.into(),
        }
    }
}

impl From<ChangeAdmin> for Problem {
    fn from(error: ChangeAdmin) -> Self {
        match error {
            ChangeAdmin::NotFound => Self::NotFound("admin"),
            ChangeAdmin::Last => Self::LastAdmin,
            ChangeAdmin::Store(error) => error.into(),
        }
    }
}

impl From<UpdateAccount> for Problem {
    fn from(error: UpdateAccount) -> Self {
        match error {
            UpdateAccount::EmailTaken => Self::Taken("e-mail address"),
            UpdateAccount::NotFound(what) => Self::NotFound(what),
            UpdateAccount::Store(error) => error.into(),
        }
    }
}
