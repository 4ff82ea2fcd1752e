//! How calls are refused: each [`Problem`] a caller can meet, with what it means to them.
//!
//! A handler names its own among its responses by the type of that name, so that a refusal which does
//! not exist does not compile. Status, code and example come from the problem itself.

use std::collections::BTreeMap;
use std::time::Duration;

use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
};

use crate::clock::Timestamp;
use crate::control::health::readiness::Reason;
use crate::control::pace::Day;
use crate::control::problem::Problem;
use crate::control::violations::Violations;
use crate::store::NoTurn;

/// Makes [`Refusal`] of the lines below, and a type of those that are some handler's `own`; the others
/// are `met` by every call of a kind, and no handler names them.
macro_rules! refusals {
    (@type met $name:ident) => {};
    (@type own $name:ident) => {
        /// A refusal that a handler names among its responses.
        pub(in crate::control) enum $name {}

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([(stringify!($name).to_owned(), RefOr::T(Response::new("")))])
            }
        }
    };
    ($($(#[doc = $meaning:literal])* $kind:ident $name:ident = $example:expr;)*) => {
        /// A problem, as the document knows it; in the order in which it is told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Refusal { $($name,)* }

        impl Refusal {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The refusal of this name.
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What has happened, in words for the caller.
            fn meaning(self) -> String {
                let lines: &[&str] = match self { $(Self::$name => &[$($meaning),*],)* };
                lines.concat().trim().to_owned()
            }

            /// Such a problem.
            fn example(self) -> Problem {
                match self { $(Self::$name => $example,)* }
            }
        }

        $(refusals!(@type $kind $name);)*
    };
}

refusals! {
    /// The body is not JSON.
    met MalformedJson = Problem::MalformedJson { line: 1, column: 14 };
    /// The body never came to its end.
    met BrokenBody = Problem::BrokenBody;
    /// Two different keys were shown.
    own AmbiguousKey = Problem::AmbiguousKey;
    /// The current password is not correct.
    own WrongPassword = Problem::WrongPassword;
    /// The token of the letter is wrong, used, or too old.
    own WrongMailToken = Problem::WrongMailToken;
    /// No access token, or one that is not good here (any more): log in.
    met NotAuthenticated = Problem::NotAuthenticated;
    /// Name and password do not belong together, or nobody has that name.
    own WrongCredentials = Problem::WrongCredentials;
    /// The refresh token is nobody's, was used before, or belongs to a session that is over.
    own InvalidRefreshToken = Problem::InvalidRefreshToken;
    /// The password is right; a second factor is asked for too.
    own TotpRequired = Problem::TotpRequired;
    /// The code is wrong, or was used before.
    own WrongSecondFactor = Problem::WrongSecondFactor;
    /// No key, or one that is not known, has expired, or was revoked.
    met UnknownKey = Problem::UnknownKey;
    /// The account is switched off.
    own AccountDisabled = Problem::AccountDisabled;
    /// The account is marked as taken over: choose another password first.
    own TakenOver = Problem::TakenOver;
    /// The address asks from where it may not, or cannot be known behind its proxy.
    met AddressNotAllowed = Problem::AddressNotAllowed;
    /// The plan, the key or the account leaves this out.
    own NotIncluded = Problem::NotIncluded("model");
    /// The asking proxy does not say, or says in two ways, what the request is that it is about to forward.
    own DoubtfulRequest = Problem::DoubtfulRequest("The path that the proxy was asked for is ambiguous.");
    /// The level of the caller does not permit this.
    met NotPermitted = Problem::NotPermitted;
    /// The operator wants a second factor of this role: enrol one first.
    met TotpEnrolmentRequired = Problem::TotpEnrolmentRequired;
    /// The operator wants verified addresses: verify yours first.
    own EmailNotVerified = Problem::EmailNotVerified;
    /// This gateway sends no mail.
    own MailOff = Problem::MailOff;
    /// The log has no room for the conversation.
    own LogFull = Problem::LogFull;
    /// Nobody may register here.
    own RegistrationClosed = Problem::RegistrationClosed;
    /// Metrics are shown to the machine itself, to `metrics.allowed_ips`, and with `metrics.token`.
    own MetricsNotAllowed = Problem::MetricsNotAllowed;
    /// The login is older than five minutes: log in again.
    own LoginTooOld = Problem::LoginTooOld { within: Duration::from_mins(5) };
    /// The login is older than five minutes: send the password, or log in again.
    own PasswordRequired = Problem::PasswordRequired { second_factor: false, within: Duration::from_mins(5) };
    /// Nothing is at this path of this listener.
    own NoSuchPath = Problem::NoSuchPath;
    /// What the path names is not there.
    own NotFound = Problem::NotFound("user");
    /// The body came too slowly.
    met BodyTimeout = Problem::BodyTimeout;
    /// A name or address that must be unique is somebody's already.
    own Taken = Problem::Taken("username");
    /// This is the only active admin who is no auditor.
    own LastAdmin = Problem::LastAdmin;
    /// A second factor is asked for already.
    own TotpEnabled = Problem::TotpEnabled;
    /// No second factor has been begun.
    own TotpNotEnrolled = Problem::TotpNotEnrolled;
    /// The job is running already, here or on another node.
    own AlreadyRunning = Problem::AlreadyRunning;
    /// The body is too large.
    met TooLarge = Problem::TooLarge(64 * 1024);
    /// The body is not sent as `Content-Type: application/json`.
    met NotJson = Problem::NotJson;
    /// Fields or parameters are missing, unknown, or break their rule; `detail` names all of them.
    own Invalid = Problem::Invalid(violated());
    /// This address, or this key, asks too fast.
    met TooFast = Problem::TooFast { per_minute: 60, retry_after: Duration::from_secs(1) };
    /// Too many failed attempts for this account or from this address.
    own TooManyLogins = Problem::TooManyLogins { retry_after: Duration::from_secs(30) };
    /// The conversations of the day are used up.
    own DayUsedUp = Problem::DayUsedUp { day: used_up(), zone: "UTC".to_owned() };
    /// A mistake of the gateway's.
    met Internal = Problem::Internal(String::new());
    /// Too much is going on.
    own Busy = Problem::Busy("");
    /// Too many lists, statistics, exports or verifications are being read now.
    met SlowReadsBusy = Problem::SlowReadsBusy(NoTurn::QueueFull);
    /// This instance takes no work now; `reasons` says why.
    own NotReady = Problem::NotReady(vec![Reason::DatabaseCannotWrite]);
    /// The database does not answer.
    met Unavailable = Problem::Unavailable(String::new());
}

/// The response with which these are told, and its name among the components: the same refusals have
/// the same.
pub(super) fn response(status: u16, refusals: &[Refusal]) -> (String, Response) {
    let mut codes = Vec::new();
    let mut meanings = Vec::new();
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    for refusal in refusals {
        let problem = refusal.example();
        let code = problem.code();
        let document = problem.specimen(Timestamp(1_790_000_000_000));
        let example = ExampleBuilder::new().summary(refusal.meaning()).value(Some(document)).build();
        content = content.examples_from_iter([(code, example)]);
        meanings.push(format!("`{}`: {}", code.replace('-', "_"), refusal.meaning()));
        codes.push(code);
    }
    let response = ResponseBuilder::new()
        .description(meanings.join("\n\n"))
        .content("application/problem+json", content.build());
    let response = headers(status).iter().fold(response, |response, (name, kind, about)| {
        let schema = ObjectBuilder::new().schema_type(kind.clone()).build();
        response.header(*name, HeaderBuilder::new().schema(Some(schema)).description(Some(*about)).build())
    });
    (codes.join("."), response.build())
}

fn headers(status: u16) -> Vec<(&'static str, Type, &'static str)> {
    match status {
        401 => vec![("WWW-Authenticate", Type::String, "`Bearer`")],
        429 | 503 => vec![("Retry-After", Type::Integer, "Seconds after which to try again.")],
        _ => vec![],
    }
}

fn violated() -> Violations {
    let mut found = Violations::default();
    found.refuse("name", "String should not be empty");
    found
}

fn used_up() -> Day {
    Day::of(10, 0, Timestamp(1_790_035_200_000), Timestamp(1_790_000_000_000))
}

// === impl Refusal ===

impl Refusal {
    /// The status it is told with.
    pub(super) fn status(self) -> u16 {
        self.example().status().as_u16()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Refusal;

    #[test]
    fn every_problem_can_be_told_of_and_each_by_one_name() {
        let codes: BTreeSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.example().code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        let table = include_str!("../problem.rs");
        let there = table.split("=> (S::").skip(1).filter_map(|line| line.split('"').nth(1));
        // What a path answers to a method that it does not know belongs to no operation, and one of the three
        // that a plan leaves out stands for all.
        let untold = ["method_not_allowed", "r_type_not_allowed", "route_not_allowed"];
        let there = there.filter(|code| !untold.contains(code));
        assert_eq!(there.collect::<BTreeSet<_>>(), codes);
    }

    #[test]
    fn a_refusal_says_what_it_means() {
        for refusal in Refusal::ALL {
            assert!(refusal.meaning().ends_with('.') && refusal.status() >= 400, "{refusal:?}");
            assert_eq!(Refusal::named(&format!("{refusal:?}")), Some(*refusal));
        }
    }
}
