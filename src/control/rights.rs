//! Who may do what: the matrix, kept as data.
//!
//! Every path of the API is bound to one [`Action`] where it is named ([`super::paths`]), and a caller
//! is let in only when the action's row names their role ([`super::caller`]). What stands in no row is
//! forbidden. Tests are made from the rows: every path, every role, every field of every body.
//!
//! An action on one's own things takes them from the session, never from the request. An action on
//! users reaches users only: staff and admins have tables of their own.

/// Everybody whom the control plane tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whoever has not said who they are.
    Stranger,
    /// Whoever shows a `pe-` key.
    KeyHolder,
    /// A user, by a session of theirs.
    User,
    /// Staff who look on.
    New,
    /// Staff who help.
    Support,
    /// Staff who may also delete.
    Advanced,
    /// An admin who reads everything and changes nothing.
    Auditor,
    /// Who runs the gateway.
    Admin,
}

/// One line of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is done.
    pub action: Action,
    /// Who may.
    pub roles: &'static [Role],
    /// What a body may say, at its top level; empty where there is no body.
    pub fields: &'static [&'static str],
}

use Role::{Admin, Advanced, Auditor, KeyHolder, New, Stranger, Support, User};

/// What shows that the owner of an account calls.
macro_rules! proof {
    ($($field:literal),*) => {
        &[$($field,)* "password", "totp_code", "recovery_code"]
    };
}

const ANYBODY: &[Role] = &Role::ALL;
const STAFF: &[Role] = &[New, Support, Advanced];
const ADMINS: &[Role] = &[Auditor, Admin];

/// Makes [`Action`] and its rows of the lines below, so that neither can lack the other.
macro_rules! matrix {
    (@fields) => { &[] };
    (@fields $fields:expr) => { $fields };
    ($($(#[$doc:meta])* $action:ident: $roles:expr $(, saying $fields:expr)?;)*) => {
        /// Something a caller may want.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $action,)* }

        impl Action {
            /// The line of this action.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$action => Row {
                        action: self, roles: $roles, fields: matrix!(@fields $($fields)?),
                    },)*
                }
            }

            /// Every action, in the order of the matrix.
            pub const ALL: &[Self] = &[$(Self::$action,)*];
        }
    };
}

matrix! {
    /// See what this is and whether it is well.
    LookAround: ANYBODY;
    /// Open an account.
    Register: ANYBODY, saying
        &["username", "name", "email", "password", "confirm_password", "about_me", "hobbies", "type"];
    /// Begin a user's session.
    LogInAsUser: ANYBODY, saying &["email", "password", "totp_code", "recovery_code"];
    /// Begin a staff member's or an admin's session.
    LogInByName: ANYBODY, saying &["username", "password", "totp_code", "recovery_code"];
    /// Go on with a session, showing its refresh token.
    RenewSession: ANYBODY, saying &["refresh_token"];
    /// Have a letter sent to an address, if it is somebody's.
    AskForLetter: ANYBODY, saying &["email"];
    /// Show that one reads an address.
    ConfirmEmail: ANYBODY, saying &["email", "token"];
    /// Choose another password, having read a letter.
    ConfirmReset: ANYBODY, saying
        &["email", "token", "new_password", "confirm_new_password", "revoke_keys"];

    /// Have one's key checked, at the price of a conversation.
    VerifyKey: &[KeyHolder];
    /// Ask how one's key stands, or what it may do.
    AskOfKey: &[KeyHolder];
    /// Have a conversation logged that went another way.
    LogMessage: &[KeyHolder], saying &["model", "messages", "research_model"];

    /// See one's own account.
    ReadOwnAccount: &[User];
    /// Describe oneself.
    DescribeOneself: &[User], saying &["name", "about_me", "hobbies"];
    /// Choose another password, knowing the old one.
    ChangeOwnPassword: &[User], saying
        &["current_password", "new_password", "confirm_new_password", "totp_code", "recovery_code", "revoke_keys"];
    /// Be reached at another address, knowing the password.
    ChangeOwnEmail: &[User], saying proof!("new_email");
    /// See one's own key, or end it.
    UseOwnKey: &[User];
    /// Replace one's own default key.
    ReplaceOwnKey: &[User], saying proof!();
    /// Have several keys, and narrow each.
    KeepOwnKeys: &[User], saying proof!("name", "label", "expires_at", "allowed_ips", "plan");
    /// Give one's own key another secret.
    RotateOwnKey: &[User], saying proof!("grace_period");
    /// See one's own sessions and second factors.
    ReadOwnLogins: &[User, New, Support, Advanced, Auditor, Admin];
    /// End one's own session, or all of them, as a user.
    EndUserSessions: &[User];
    /// Begin a second factor, as a user.
    EnrolUserTotp: &[User], saying proof!();
    /// Have it asked for from now on.
    ConfirmUserTotp: &[User], saying &["totp_code"];
    /// Have it asked for no longer.
    DisableUserTotp: &[User], saying proof!();
    /// Replace the recovery codes, as a user.
    RenewUserCodes: &[User], saying proof!();
    /// End one's own session, or all of them, as staff.
    EndStaffSessions: STAFF;
    /// Begin a second factor, as staff.
    EnrolStaffTotp: STAFF, saying proof!();
    /// Have it asked for from now on.
    ConfirmStaffTotp: STAFF, saying &["totp_code"];
    /// Have it asked for no longer.
    DisableStaffTotp: STAFF, saying proof!();
    /// Replace the recovery codes, as staff.
    RenewStaffCodes: STAFF, saying proof!();
    /// End one's own session, or all of them, as an admin.
    EndAdminSessions: ADMINS;
    /// Begin a second factor, as an admin.
    EnrolAdminTotp: ADMINS, saying proof!();
    /// Have it asked for from now on.
    ConfirmAdminTotp: ADMINS, saying &["totp_code"];
    /// Have it asked for no longer.
    DisableAdminTotp: ADMINS, saying proof!();
    /// Replace the recovery codes, as an admin.
    RenewAdminCodes: ADMINS, saying proof!();
    /// Leave.
    DeleteOwnAccount: &[User], saying proof!();

    /// See oneself as staff.
    ReadStaffProfile: STAFF;
    /// See users, without what was noted of them.
    ReadUsers: &[New, Support, Advanced, Auditor, Admin];
    /// See what was noted of users.
    ReadNotes: &[Support, Advanced, Auditor, Admin];
    /// Let a user in again, and as far as they should be.
    HelpUsers: &[Support, Advanced], saying
        &["email", "password", "limits", "subscription_plan", "revoke_keys", "taken_over"];
    /// Change anything of a user that can be changed.
    ChangeUsers: &[Admin], saying &[
        "name", "email", "password", "about_me", "hobbies", "type", "subscription_plan", "credits", "limits",
        "access_rtype", "level", "additional_notes", "is_active", "allowed_ips", "revoke_keys", "taken_over",
    ];
    /// Delete a user, who can be restored.
    DeleteUsers: &[Advanced, Admin];
    /// Give a user another key. Nobody but its owner ever sees the one there is.
    ReplaceUserKeys: &[Admin];

    /// See what keys a user has, never the keys themselves.
    ReadUserKeys: ADMINS;
    /// End a user's key.
    RevokeUserKeys: &[Admin];
    /// See the sessions and second factors of users, staff and admins.
    ReadLogins: ADMINS;
    /// End sessions of users, staff and admins.
    EndLogins: &[Admin];
    /// Remove the second factor of another account, whose owner has lost it.
    ResetTotp: &[Admin];
    /// Ask which rule would decide.
    Explain: ADMINS, saying
        &["key", "username", "key_name", "address", "host", "method", "path", "model", "r_type"];

    /// See deleted users.
    ReadDeletedUsers: ADMINS;
    /// Bring a deleted user back.
    RestoreUsers: &[Admin], saying &["username", "email"];
    /// Forget a deleted user for good.
    EraseUsers: &[Admin];

    /// See staff.
    ReadStaff: ADMINS;
    /// Take somebody on.
    HireStaff: &[Admin], saying &["name", "username", "email", "password", "staff_level"];
    /// Change anything of a staff member that can be changed.
    ChangeStaff: &[Admin], saying &["name", "email", "password", "staff_level", "is_active"];
    /// Let somebody go.
    DismissStaff: &[Admin];

    /// See the admins.
    ReadAdmins: ADMINS;
    /// Make another admin.
    CreateAdmin: &[Admin], saying &["username", "password", "role"];
    /// Give an admin another password or role, or keep one from logging in.
    ChangeAdmin: &[Admin], saying &["password", "role", "is_active"];
    /// Delete an admin.
    DeleteAdmin: &[Admin];

    /// Give every user a whole day.
    ResetLimits: &[Admin];
    /// Read what was said.
    ReadLog: ADMINS;
    /// Read who changed what.
    ReadAudit: ADMINS;
    /// Read how much was used.
    ReadUsage: ADMINS;
    /// See whether balances are right, and what they are made of.
    ReadLedger: ADMINS;
    /// See the clockwork.
    ReadJobs: ADMINS;
    /// Set a job going besides its hour.
    RunJobs: &[Admin];
}

// === impl Role ===

impl Role {
    /// Everybody.
    pub const ALL: [Self; 8] = [Stranger, KeyHolder, User, New, Support, Advanced, Auditor, Admin];

    /// The role of a staff level; a level that is none of the three has no rights.
    #[must_use]
    pub fn of_staff(level: &str) -> Option<Self> {
        match level {
            "new" => Some(New),
            "support" => Some(Support),
            "advanced" => Some(Advanced),
            _ => None,
        }
    }

    /// The role of an admin; a word that is neither of the two has no rights.
    #[must_use]
    pub fn of_admin(role: &str) -> Option<Self> {
        match role {
            "auditor" => Some(Auditor),
            "admin" => Some(Admin),
            _ => None,
        }
    }
}

// === impl Action ===

impl Action {
    /// Whether `role` may.
    #[must_use]
    pub fn permits(self, role: Role) -> bool {
        self.row().roles.contains(&role)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Role};

    /// The page the rights were agreed on, cell by cell.
    #[test]
    fn the_matrix_is_as_agreed() {
        use Role::{Admin, Advanced, Auditor, New, Support, User};
        let agreed: [(Action, &[Role]); 12] = [
            (Action::ReadUsers, &[New, Support, Advanced, Auditor, Admin]),
            (Action::ReadNotes, &[Support, Advanced, Auditor, Admin]),
            (Action::HelpUsers, &[Support, Advanced]),
            (Action::ChangeUsers, &[Admin]),
            (Action::DeleteUsers, &[Advanced, Admin]),
            (Action::UseOwnKey, &[User]),
            (Action::ReplaceUserKeys, &[Admin]),
            (Action::ReadLog, &[Auditor, Admin]),
            (Action::ReadAdmins, &[Auditor, Admin]),
            (Action::ChangeAdmin, &[Admin]),
            (Action::ChangeStaff, &[Admin]),
            (Action::ResetLimits, &[Admin]),
        ];
        for (action, roles) in agreed {
            for role in Role::ALL {
                assert_eq!(action.permits(role), roles.contains(&role), "{action:?} {role:?}");
            }
        }
        let helped = Action::HelpUsers.row().fields;
        assert!(helped.iter().all(|field| Action::ChangeUsers.row().fields.contains(field)));
    }

    #[test]
    fn every_action_is_somebodys() {
        for action in Action::ALL {
            assert!(!action.row().roles.is_empty(), "{action:?}");
        }
    }

    #[test]
    fn a_level_nobody_knows_has_no_rights() {
        assert_eq!(Role::of_staff("advanced"), Some(Role::Advanced));
        for unknown in ["", "Advanced", "admin", "owner"] {
            assert_eq!(Role::of_staff(unknown), None, "{unknown}");
        }
    }
}
