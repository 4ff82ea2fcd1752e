//! The paths by which accounts of every kind go on with sessions, leave, and guard themselves.

use super::paths::{Paths, delete, get, post};
use super::rights::Action as A;
use super::{letters, logins, own_logins, recovery, renewal, totp};

/// How users go on, leave, guard themselves, and come back when they forgot their password.
pub(super) fn user_sessions() -> Paths {
    Paths::new()
        .route("/api/v1/auth/refresh", post(A::RenewSession, renewal::user_refresh))
        .route("/api/v1/auth/logout", post(A::EndUserSessions, renewal::user_logout))
        .route("/api/v1/auth/logout-all", post(A::EndUserSessions, renewal::user_logout_all))
        .route("/api/v1/auth/sessions", get(A::ReadOwnLogins, own_logins::user_sessions))
        .route("/api/v1/auth/sessions/{id}", delete(A::EndUserSessions, own_logins::end_user_session))
        .route("/api/v1/auth/second-factors", get(A::ReadOwnLogins, own_logins::user_second_factors))
        .route("/api/v1/auth/totp/enroll", post(A::EnrolUserTotp, totp::user_totp_enroll))
        .route("/api/v1/auth/totp/confirm", post(A::ConfirmUserTotp, totp::user_totp_confirm))
        .route("/api/v1/auth/totp/disable", post(A::DisableUserTotp, totp::user_totp_disable))
        .route("/api/v1/auth/totp/recovery-codes", post(A::RenewUserCodes, recovery::user_recovery_codes))
        .route(
            "/api/v1/auth/verify-email/request",
            post(A::AskForLetter, letters::request_email_verification),
        )
        .route(
            "/api/v1/auth/verify-email/confirm",
            post(A::ConfirmEmail, letters::confirm_email_verification),
        )
        .route("/api/v1/auth/password-reset/request", post(A::AskForLetter, letters::request_password_reset))
        .route("/api/v1/auth/password-reset/confirm", post(A::ConfirmReset, letters::confirm_password_reset))
}

/// How staff go on, leave and guard themselves.
pub(super) fn staff_sessions() -> Paths {
    Paths::new()
        .route("/api/v1/staff/refresh", post(A::RenewSession, renewal::staff_refresh))
        .route("/api/v1/staff/logout", post(A::EndStaffSessions, renewal::staff_logout))
        .route("/api/v1/staff/logout-all", post(A::EndStaffSessions, renewal::staff_logout_all))
        .route("/api/v1/staff/sessions", get(A::ReadOwnLogins, own_logins::staff_sessions))
        .route("/api/v1/staff/sessions/{id}", delete(A::EndStaffSessions, own_logins::end_staff_session))
        .route("/api/v1/staff/second-factors", get(A::ReadOwnLogins, own_logins::staff_second_factors))
        .route("/api/v1/staff/totp/enroll", post(A::EnrolStaffTotp, totp::staff_totp_enroll))
        .route("/api/v1/staff/totp/confirm", post(A::ConfirmStaffTotp, totp::staff_totp_confirm))
        .route("/api/v1/staff/totp/disable", post(A::DisableStaffTotp, totp::staff_totp_disable))
        .route("/api/v1/staff/totp/recovery-codes", post(A::RenewStaffCodes, recovery::staff_recovery_codes))
}

/// How admins go on, leave and guard themselves.
pub(super) fn admin_sessions() -> Paths {
    Paths::new()
        .route("/api/v1/admin/refresh", post(A::RenewSession, renewal::admin_refresh))
        .route("/api/v1/admin/logout", post(A::EndAdminSessions, renewal::admin_logout))
        .route("/api/v1/admin/logout-all", post(A::EndAdminSessions, renewal::admin_logout_all))
        .route("/api/v1/admin/sessions", get(A::ReadOwnLogins, own_logins::admin_sessions))
        .route("/api/v1/admin/sessions/{id}", delete(A::EndAdminSessions, own_logins::end_admin_session))
        .route("/api/v1/admin/second-factors", get(A::ReadOwnLogins, own_logins::admin_second_factors))
        .route("/api/v1/admin/totp/enroll", post(A::EnrolAdminTotp, totp::admin_totp_enroll))
        .route("/api/v1/admin/totp/confirm", post(A::ConfirmAdminTotp, totp::admin_totp_confirm))
        .route("/api/v1/admin/totp/disable", post(A::DisableAdminTotp, totp::admin_totp_disable))
        .route("/api/v1/admin/totp/recovery-codes", post(A::RenewAdminCodes, recovery::admin_recovery_codes))
}

/// What lets others in, in the hands of admins.
pub(super) fn logins_of_others() -> Paths {
    Paths::new()
        .route("/api/v1/admin/users/{username}/reset-totp", post(A::ResetTotp, recovery::reset_user_totp))
        .route("/api/v1/admin/staff/{username}/reset-totp", post(A::ResetTotp, recovery::reset_staff_totp))
        .route("/api/v1/admin/admins/{username}/reset-totp", post(A::ResetTotp, recovery::reset_admin_totp))
        .route(
            "/api/v1/admin/users/{username}/sessions",
            get(A::ReadLogins, logins::list_user_sessions).delete(A::EndLogins, logins::end_sessions_of_user),
        )
        .route(
            "/api/v1/admin/users/{username}/sessions/{id}",
            delete(A::EndLogins, logins::end_session_of_user),
        )
        .route(
            "/api/v1/admin/users/{username}/second-factors",
            get(A::ReadLogins, logins::list_user_second_factors),
        )
        .route(
            "/api/v1/admin/staff/{username}/sessions",
            get(A::ReadLogins, logins::list_staff_sessions)
                .delete(A::EndLogins, logins::end_sessions_of_staff),
        )
        .route(
            "/api/v1/admin/staff/{username}/sessions/{id}",
            delete(A::EndLogins, logins::end_session_of_staff),
        )
        .route(
            "/api/v1/admin/staff/{username}/second-factors",
            get(A::ReadLogins, logins::list_staff_second_factors),
        )
        .route(
            "/api/v1/admin/admins/{username}/sessions",
            get(A::ReadLogins, logins::list_admin_sessions)
                .delete(A::EndLogins, logins::end_sessions_of_admin),
        )
        .route(
            "/api/v1/admin/admins/{username}/sessions/{id}",
            delete(A::EndLogins, logins::end_session_of_admin),
        )
        .route(
            "/api/v1/admin/admins/{username}/second-factors",
            get(A::ReadLogins, logins::list_admin_second_factors),
        )
}
