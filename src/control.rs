//! The control plane: the REST API by which accounts, keys, limits and the log are looked after,
//! and what orchestrators ask.
//!
//! Handlers are thin: a typed caller and a checked body come in ([`caller`], [`forms`]), one question
//! is put to the floors below, and an answer or a [`problem`] goes out. Nothing here sees a body of
//! the data plane.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use crate::chatlog::Chatlog;
use crate::clock::Clock;
use crate::config::{Authz, MetricsAccess, RequireTotp, Route};
use crate::credential::account_digest::AccountDigests;
use crate::credential::erasure::Erasures;
use crate::credential::key::Pepper;
use crate::credential::seal::Sealer;
use crate::credential::ticket::TicketKey;
use crate::credential::token::Tokens;
use crate::identity::Directory;
use crate::limits::Limits;
use crate::plan::Plans;
use crate::quota::Quota;
use crate::schedule::Schedule;
use crate::store::{Db, SlowReads};
use crate::telemetry::Metrics;

mod admins;
mod audit;
mod authz;
mod backoff;
mod body;
mod by_mail;
mod caller;
mod deleted;
mod docs;
mod envelope;
mod exchanges;
mod explain;
mod forms;
mod health;
mod info;
mod jobs;
mod key_self;
mod keys;
mod ledger;
mod letters;
mod logins;
mod me;
mod messages;
mod metrics;
mod my_account;
mod my_key;
mod openapi;
mod own_logins;
mod pace;
mod paging;
mod party;
mod passwords;
mod paths;
mod problem;
mod profile;
mod proof;
mod recovery;
mod register;
mod renewal;
mod reset;
pub mod rights;
mod second_factor;
mod session;
mod session_paths;
mod sightings;
mod slow_reads;
mod staff;
mod starting;
mod toll;
mod totp;
mod trail;
mod usage;
mod users;
mod verify;
mod violations;

pub use backoff::Backoff;
pub use body::Counted;
pub use health::Vitals;
pub use health::readiness::{Readiness, Reason};
pub use ledger::{DayReport, LedgerDifference, LedgerEpoch, LedgerLine, LedgerReport, Whose};
pub use letters::Letters;
pub use my_key::MadeKey;
pub use openapi::openapi_json;
pub use passwords::Passwords;
pub use paths::Listed;
pub use register::{beginning, is_username, newcomer};
pub use sightings::Sightings;
pub use starting::starting;
pub use usage::date;
pub use violations::is_email;

use paths::{Paths, delete, get, post, put};
use rights::Action as A;
use session_paths::{admin_sessions, logins_of_others, staff_sessions, user_sessions};

/// What the control plane works with. One value serves every surface of a gateway.
pub struct Control {
    /// The truth.
    pub db: Db,
    /// Where lists, sums and walks are read.
    pub slow_reads: SlowReads,
    /// Told when a user changes.
    pub directory: Directory,
    /// Asked what is left of a day, and for a conversation by `verify-key`.
    pub quota: Quota,
    /// Where messages are logged, and who is asked to finish writing before the log is read.
    pub chatlog: Chatlog,
    /// Rates of client addresses on `/api/v1`.
    pub limits: Arc<Limits>,
    /// Issues sessions and recognises them.
    pub tokens: Arc<Tokens>,
    /// Makes the digests of refresh tokens.
    pub refresh_key: TicketKey,
    /// Makes the digests of recovery codes and of tokens sent by mail.
    pub code_key: TicketKey,
    /// Writes letters.
    pub letters: Letters,
    /// Notes when sessions are used.
    pub sightings: Sightings,
    /// Seals the readable copies of keys, and TOTP secrets.
    pub sealer: Arc<Sealer>,
    /// Makes the digests of keys.
    pub pepper: Arc<Pepper>,
    /// Makes the digests under which a deleted account's day is kept.
    pub digests: AccountDigests,
    /// Makes the proofs that somebody was erased.
    pub erasures: Erasures,
    /// Which plans there are.
    pub plans: Plans,
    /// What time it is.
    pub clock: Clock,
    /// Where passwords are hashed.
    pub passwords: Passwords,
    /// Who failed to log in lately.
    pub backoff: Backoff,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Who may read it where clients come in too.
    pub metrics_access: MetricsAccess,
    /// The machine, as `/health` sees it.
    pub vitals: Vitals,
    /// The data plane's routes, for `explain`.
    pub routes: Vec<Route>,
    /// What apps that ask by `authz` charge for.
    pub authz: Authz,
    /// What the operator chose.
    pub settings: Settings,
    /// True while the background jobs run.
    pub scheduler_running: Arc<AtomicBool>,
    /// When jobs run, and how they ran.
    pub schedule: Schedule,
    /// Whose turn it is to walk through the ledger.
    pub verifying: Semaphore,
    /// Why no work should be sent here.
    pub readiness: Readiness,
}

/// The parts of the configuration that the control plane shows or obeys.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether anybody may register.
    pub allow_registration: bool,
    /// Whether accounts open, and addresses change, only by a letter.
    pub registration_by_mail: bool,
    /// How long a login can be renewed.
    pub refresh_token_ttl: Duration,
    /// Which roles must have a second factor.
    pub require_totp: RequireTotp,
    /// Whether users log in only with a verified address.
    pub require_verified_email: bool,
    /// Whether the API's documentation is served.
    pub docs: bool,
    /// Requests a minute of one address on `/api/v1`; 0 for no limit.
    pub rate_limit_per_minute: u32,
}

/// Which part of the API a listener serves; what it does not serve is 404 there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// All of it, where there is one kind of listener only.
    Everything,
    /// What users and apps need: all but the staff's and the admin's API and the metrics.
    Public,
    /// The staff's and the admin's API and the metrics, and what orchestrators ask.
    Admin,
}

/// The control plane as a service.
///
/// Each request needs [`crate::listen::ClientIp`] in its extensions, and should have
/// [`crate::ids::RequestId`] there. A handler changes rows and then tells the directory, so the
/// service must run to its end even when the client leaves: run it on [`crate::background`].
pub fn router(control: Arc<Control>, surface: Surface) -> Router {
    let documented = control.settings.docs;
    let served = paths(surface).merge(if documented { documentation() } else { Paths::new() });
    let served = served.into_router();
    served
        .fallback(envelope::no_such_path)
        .method_not_allowed_fallback(envelope::method_not_allowed)
        .layer(Extension(surface))
        .layer(from_fn_with_state(Arc::clone(&control), pace::keep))
        .layer(from_fn_with_state(Arc::clone(&control), envelope::wrap))
        .with_state(control)
}

/// Every method of every path, and what its caller must be permitted to do.
#[must_use]
pub fn listed() -> Vec<Listed> {
    paths(Surface::Everything).merge(documentation()).into_list()
}

/// Every path of the control plane, with its row of the matrix.
fn paths(surface: Surface) -> Paths {
    match surface {
        Surface::Everything => open_paths().merge(user_paths()).merge(staff_paths()).merge(admin_paths()),
        Surface::Public => open_paths().merge(user_paths()),
        Surface::Admin => open_paths().merge(staff_paths()).merge(admin_paths()),
    }
}

/// On every surface.
fn open_paths() -> Paths {
    health_paths().route("/", get(A::LookAround, info::root))
}

/// What orchestrators and load balancers ask.
fn health_paths() -> Paths {
    Paths::new()
        .route("/health", get(A::LookAround, health::health))
        .route("/healthz", get(A::LookAround, health::healthz))
        .route("/livez", get(A::LookAround, health::alive))
        .route("/readyz", get(A::LookAround, health::ready))
}

/// On every surface, unless the operator wants none.
fn documentation() -> Paths {
    Paths::new()
        .route("/openapi.json", get(A::LookAround, docs::openapi_document))
        .route("/docs", get(A::LookAround, docs::swagger_ui))
        .route("/docs/{file}", get(A::LookAround, docs::swagger_ui_file))
        .route("/redoc", get(A::LookAround, docs::redoc))
        .route("/redoc/{file}", get(A::LookAround, docs::redoc_file))
}

/// For users, and apps that hold a key.
fn user_paths() -> Paths {
    user_sessions()
        .route("/api/v1/info", get(A::LookAround, info::info))
        .route("/api/v1/auth/register", post(A::Register, register::register))
        .route("/api/v1/auth/login", post(A::LogInAsUser, session::user_login))
        .route(
            "/api/v1/auth/profile",
            get(A::ReadOwnAccount, me::profile).put(A::DescribeOneself, me::update_profile),
        )
        .route("/api/v1/auth/password", put(A::ChangeOwnPassword, my_account::change_password))
        .route("/api/v1/auth/email", put(A::ChangeOwnEmail, my_account::change_email))
        .route("/api/v1/auth/account", delete(A::DeleteOwnAccount, my_account::delete_account))
        .route("/api/v1/auth/api-key", get(A::UseOwnKey, my_key::show_key))
        .route("/api/v1/auth/regenerate-key", post(A::ReplaceOwnKey, my_key::regenerate_key))
        .route("/api/v1/auth/keys", get(A::UseOwnKey, keys::list_keys).post(A::KeepOwnKeys, keys::create_key))
        .route(
            "/api/v1/auth/keys/{id}",
            get(A::UseOwnKey, keys::get_key)
                .put(A::KeepOwnKeys, keys::update_key)
                .delete(A::UseOwnKey, keys::revoke_key),
        )
        .route("/api/v1/auth/keys/{id}/rotate", post(A::RotateOwnKey, keys::rotate_key))
        .route("/api/v1/key", get(A::AskOfKey, key_self::key_standing))
        .route("/api/v1/authz", get(A::AskOfKey, authz::authz).post(A::AskOfKey, authz::authz_post))
        .route("/api/v1/auth/verify-key", post(A::VerifyKey, verify::verify_key))
        .route("/api/v1/auth/log-message", post(A::LogMessage, messages::log_message))
}

/// For those who help users.
fn staff_paths() -> Paths {
    staff_sessions()
        .route("/api/v1/staff/login", post(A::LogInByName, staff::staff_login))
        .route("/api/v1/staff/profile", get(A::ReadStaffProfile, staff::staff_profile))
        .route("/api/v1/staff/users", get(A::ReadUsers, staff::users::staff_list_users))
        .route(
            "/api/v1/staff/users/{username}",
            get(A::ReadUsers, staff::users::staff_get_user)
                .put(A::HelpUsers, staff::users::staff_update_user)
                .delete(A::DeleteUsers, staff::users::staff_delete_user),
        )
}

/// For those who run the gateway.
fn admin_paths() -> Paths {
    admin_sessions()
        .merge(logins_of_others())
        .route("/metrics", get(A::LookAround, metrics::metrics))
        .route("/api/v1/admin/login", post(A::LogInByName, session::admin_login))
        .route("/api/v1/admin/users", get(A::ReadUsers, users::list_users))
        .route(
            "/api/v1/admin/users/{username}",
            get(A::ReadUsers, users::get_user)
                .put(A::ChangeUsers, users::update_user)
                .delete(A::DeleteUsers, users::delete_user),
        )
        .route(
            "/api/v1/admin/users/{username}/regenerate-key",
            post(A::ReplaceUserKeys, users::regenerate_user_key),
        )
        .route("/api/v1/admin/users/{username}/keys", get(A::ReadUserKeys, keys::list_user_keys))
        .route("/api/v1/admin/users/{username}/keys/{id}", delete(A::RevokeUserKeys, keys::revoke_user_key))
        .route("/api/v1/admin/explain", post(A::Explain, explain::explain))
        .route("/api/v1/admin/deleted-users", get(A::ReadDeletedUsers, deleted::list_deleted_users))
        .route(
            "/api/v1/admin/deleted-users/{id}",
            get(A::ReadDeletedUsers, deleted::get_deleted_user).delete(A::EraseUsers, deleted::erase_user),
        )
        .route("/api/v1/admin/deleted-users/{id}/restore", post(A::RestoreUsers, deleted::restore_user))
        .route(
            "/api/v1/admin/staff",
            get(A::ReadStaff, staff::accounts::list_staff).post(A::HireStaff, staff::accounts::create_staff),
        )
        .route(
            "/api/v1/admin/staff/{username}",
            get(A::ReadStaff, staff::accounts::get_staff)
                .put(A::ChangeStaff, staff::accounts::update_staff)
                .delete(A::DismissStaff, staff::accounts::delete_staff),
        )
        .route(
            "/api/v1/admin/admins",
            get(A::ReadAdmins, admins::list_admins).post(A::CreateAdmin, admins::create_admin),
        )
        .route(
            "/api/v1/admin/admins/{username}",
            get(A::ReadAdmins, admins::get_admin)
                .put(A::ChangeAdmin, admins::update_admin)
                .delete(A::DeleteAdmin, admins::delete_admin),
        )
        .route("/api/v1/admin/audit", get(A::ReadAudit, audit::list_audit))
        .route("/api/v1/admin/reset-limits", post(A::ResetLimits, reset::reset_limits))
        .route("/api/v1/admin/jobs", get(A::ReadJobs, jobs::list_jobs))
        .route("/api/v1/admin/jobs/{name}/run", post(A::RunJobs, jobs::run_job))
        .route("/api/v1/admin/usage", get(A::ReadUsage, usage::usage))
        .route("/api/v1/admin/statistics", get(A::ReadUsage, usage::statistics))
        .route("/api/v1/admin/ledger/verify", get(A::ReadLedger, ledger::verify_ledger))
        .route("/api/v1/admin/ledger/{username}", get(A::ReadLedger, ledger::explain_ledger))
        .route("/api/v1/admin/message-logs", get(A::ReadLog, exchanges::list_message_logs))
        .route("/api/v1/admin/message-logs/{id}", get(A::ReadLog, exchanges::get_message_log))
}
