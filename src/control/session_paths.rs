//! The paths by which accounts of every kind go on with sessions, leave, and guard themselves.

use super::paths::{Paths, post};
use super::rights::Action as A;
use super::{letters, recovery, renewal, totp};

/// How users go on, leave, guard themselves, and come back when they forgot their password.
pub(super) fn user_sessions() -> Paths {
    Paths::new()
        .route("/api/v1/auth/refresh", post(A::RenewSession, renewal::user_refresh))
        .route("/api/v1/auth/logout", post(A::EndUserSessions, renewal::user_logout))
        .route("/api/v1/auth/logout-all", post(A::EndUserSessions, renewal::user_logout_all))
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
        .route("/api/v1/admin/totp/enroll", post(A::EnrolAdminTotp, totp::admin_totp_enroll))
        .route("/api/v1/admin/totp/confirm", post(A::ConfirmAdminTotp, totp::admin_totp_confirm))
        .route("/api/v1/admin/totp/disable", post(A::DisableAdminTotp, totp::admin_totp_disable))
        .route("/api/v1/admin/totp/recovery-codes", post(A::RenewAdminCodes, recovery::admin_recovery_codes))
        .route("/api/v1/admin/users/{username}/reset-totp", post(A::ResetTotp, recovery::reset_user_totp))
        .route("/api/v1/admin/staff/{username}/reset-totp", post(A::ResetTotp, recovery::reset_staff_totp))
        .route("/api/v1/admin/admins/{username}/reset-totp", post(A::ResetTotp, recovery::reset_admin_totp))
}
